<#
.SYNOPSIS
Fetch one locked version from a hubpin mirror, and check every byte of it.

.DESCRIPTION
What hubpin-pull.sh does, for Windows: PowerShell 5.1 or newer and curl.exe, which Windows 10 and 11
have. Two layouts: the cache of huggingface_hub (default; files are put into snapshots\ as that
library does where it may not make symbolic links), or a plain folder (-To), with versions side by
side and `current`, a junction to the one in use.

Exit status: 0 done, 1 it failed, 2 what you gave is wrong or a notice has to be accepted.

.EXAMPLE
.\hubpin-pull.ps1 -Mirror http://mirror:8090 org/voice@v23

.EXAMPLE
.\hubpin-pull.ps1 -Mirror http://mirror:8090 -To D:\voice org/voice@v24
.\hubpin-pull.ps1 -To D:\voice -Back
#>
[CmdletBinding()]
param(
    [Parameter(Position = 0)] [string] $Pair = '',
    [string] $Mirror = $env:HF_ENDPOINT,
    [string] $Cache = '',
    [string] $To = '',
    [string] $Fingerprint = '',
    [switch] $AcceptNotice,
    [switch] $Back
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$Utf8 = New-Object System.Text.UTF8Encoding $false

function Say([string] $text) { [Console]::Error.WriteLine("hubpin-pull: $text") }
function Stop-With([int] $status, [string] $text) { Say $text; exit $status }

function Get-Digest([string] $file) {
    # -LiteralPath: names may hold brackets.
    return (Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash.ToLowerInvariant()
}

function Test-File([string] $file, $entry) {
    if (-not (Test-Path -LiteralPath $file -PathType Leaf)) { return $false }
    if ((Get-Item -LiteralPath $file).Length -ne $entry.Size) { return $false }
    return (Get-Digest $file) -eq $entry.Sha
}

function New-Folder([string] $folder) { [void] [IO.Directory]::CreateDirectory($folder) }

function ConvertTo-UrlPath([string] $path) {
    return (($path -split '/') | ForEach-Object { [Uri]::EscapeDataString($_) }) -join '/'
}

# Appends what $file lacks of $url. The status of the answer; 0 if there was none.
function Invoke-Fetch([string] $url, [string] $file) {
    $code = & curl.exe -q -g -sS -f -C - --noproxy '*' --connect-timeout 10 `
        --speed-limit 1 --speed-time 120 -A 'hubpin-pull/1' -w '%{http_code}' -o $file $url
    $script:ended = $LASTEXITCODE
    # 33: the mirror sends all of it again, so what is here may be wrong.
    if ($script:ended -eq 33 -and (Test-Path -LiteralPath $file)) { Remove-Item -LiteralPath $file }
    return [int] "0$code"
}

function Receive-File([string] $url, [string] $file, $entry) {
    $tries = 0
    $bad = 0
    while ($true) {
        if (-not (Test-Path -LiteralPath $file)) { [IO.File]::Create($file).Dispose() }
        $have = (Get-Item -LiteralPath $file).Length
        if ($have -ge $entry.Size) {
            if ($have -eq $entry.Size -and (Get-Digest $file) -eq $entry.Sha) { return }
            $bad++
            if ($bad -gt 2) { Stop-With 1 "$($entry.Path): the mirror sends other bytes than its list says" }
            Remove-Item -LiteralPath $file
            $have = 0
        }
        $code = Invoke-Fetch $url $file
        $now = 0
        if (Test-Path -LiteralPath $file) { $now = (Get-Item -LiteralPath $file).Length }
        if ($script:ended -eq 0 -and $now -ge $entry.Size) { continue }
        if ($code -ge 400 -and $code -lt 500 -and $code -notin 408, 416, 429) {
            Stop-With 1 "$($entry.Path): $Mirror refuses, with $code"
        }
        if ($code -eq 416 -and $now -gt 0) { Remove-Item -LiteralPath $file }
        if ($now -gt $have) { $tries = 0 } else { $tries++ }
        if ($tries -ge 5) {
            Stop-With 1 "$($entry.Path): no more comes. What came is kept, and the next run goes on there"
        }
        Start-Sleep -Seconds $tries
    }
}

# The list of a version; whatever is odd is refused.
function Read-List([string] $file) {
    $list = @{ Commit = ''; Fingerprint = ''; Notice = ''; Main = $false; Entries = @() }
    $sums = New-Object System.Text.StringBuilder
    $entries = New-Object System.Collections.Generic.List[object]
    $lines = [IO.File]::ReadAllText($file, $Utf8).TrimEnd("`n") -split "`n"
    if ($lines[0] -cne '# hubpin-files 1') { Stop-With 1 'that is no list of files of a hubpin mirror' }
    foreach ($line in $lines) {
        if ($line -cmatch '^# commit ([0-9a-f]{40})$') { $list.Commit = $Matches[1]; continue }
        if ($line -cmatch '^# fingerprint (sha256:[0-9a-f]{64})$') { $list.Fingerprint = $Matches[1]; continue }
        if ($line -cmatch '^# notice (.*)$') { $list.Notice = $Matches[1]; continue }
        if ($line -ceq '# ref main') { $list.Main = $true; continue }
        if ($line.StartsWith('#')) { continue }
        if ($line -cnotmatch '^([0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([0-9]{1,18}) (.+)$') {
            Stop-With 1 'the list of files is damaged'
        }
        $entry = [pscustomobject] @{
            Sha = $Matches[1]; Etag = $Matches[2]; Size = [long] $Matches[3]; Path = $Matches[4]
        }
        # Also what Windows cannot have in a name, or takes for a device or another stream.
        foreach ($part in $entry.Path -split '/') {
            if ($part -match '^$|^\.+$|[\x00-\x1f\\<>:"|?*]|[. ]$|^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)') {
                Stop-With 1 "Windows cannot have a file of this name: $($entry.Path)"
            }
        }
        [void] $sums.Append("$($entry.Sha)  $($entry.Path)`n")
        $entries.Add($entry)
    }
    $list.Entries = $entries
    $hash = [Security.Cryptography.SHA256]::Create().ComputeHash($Utf8.GetBytes($sums.ToString()))
    $found = 'sha256:' + [BitConverter]::ToString($hash).Replace('-', '').ToLowerInvariant()
    if ($list.Commit -eq '') { Stop-With 1 'the list of files names no commit' }
    if ($found -ne $list.Fingerprint) { Stop-With 1 'the files on the list do not add up to its fingerprint' }
    if ($Fingerprint -and $found -ne $Fingerprint) {
        Stop-With 1 "wrong fingerprint: $Fingerprint was wanted, and this version has $found. Nothing was changed"
    }
    return $list
}

# The version that a junction leads to, or nothing.
function Get-Version([string] $link) {
    if (-not (Test-Path -LiteralPath $link)) { return '' }
    return Split-Path -Leaf (@((Get-Item -LiteralPath $link -Force).Target)[0])
}

# Windows has no way to replace a junction in one step: it is gone for a moment.
function Set-Version([string] $link, [string] $version) {
    if (Test-Path -LiteralPath $link) {
        if (-not (Get-Item -LiteralPath $link -Force).LinkType) { Stop-With 1 "$link is in the way: it is no junction" }
        [IO.Directory]::Delete($link)
    }
    [void] (New-Item -ItemType Junction -Path $link -Target (Join-Path (Split-Path $link) $version))
}

if ($Fingerprint -and $Fingerprint -notmatch '^sha256:') { $Fingerprint = "sha256:$Fingerprint" }
if ($To) { $To = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($To) }
if ($Back) {
    if (-not $To) { Stop-With 2 '-Back needs -To' }
    $version = Get-Version (Join-Path $To 'previous')
    if (-not $version) { Stop-With 2 "there is no version before the one in $To\current" }
    $list = Read-List (Join-Path $To ".hubpin\$version.list")
    foreach ($entry in $list.Entries) {
        if (-not (Test-File (Join-Path $To "$version\$($entry.Path)") $entry)) {
            Stop-With 1 "$($entry.Path) is missing or altered; fetch the version again"
        }
    }
    $before = Get-Version (Join-Path $To 'current')
    Set-Version (Join-Path $To 'current') $version
    Set-Version (Join-Path $To 'previous') $before
    Say "$To\current is $version again"
    Write-Output $list.Fingerprint
    exit 0
}

if ($Pair -cnotmatch '^(datasets/|spaces/)?([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?)@([^\s\\]+)$') {
    Stop-With 2 'write REPO@REVISION, for example org/model@main'
}
$kind = if ($Matches[1]) { $Matches[1].TrimEnd('/') } else { 'models' }
$name = $Matches[2]
$revision = $Matches[4]
if ("$name/$revision" -match '(^|/)\.*(/|$)|--') { Stop-With 2 "${Pair}: write REPO@REVISION" }
if ("$Mirror" -notmatch '^https?://') { Stop-With 2 'where is the mirror? -Mirror http://mirror:8090' }
$Mirror = $Mirror.TrimEnd('/')
if (-not $Cache) {
    $home_ = if ($env:HF_HOME) { $env:HF_HOME } else { Join-Path $env:USERPROFILE '.cache\huggingface' }
    $Cache = if ($env:HF_HUB_CACHE) { $env:HF_HUB_CACHE } else { Join-Path $home_ 'hub' }
}
$Cache = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Cache)
$root = if ($To) { $To } else { Join-Path $Cache "$kind--$($name.Replace('/', '--'))" }
$state = Join-Path $root '.hubpin'
New-Folder (Join-Path $state 'parts')

$new = Join-Path $state 'new.list'
if (Test-Path -LiteralPath $new) { Remove-Item -LiteralPath $new }
$repo = $Pair.Substring(0, $Pair.IndexOf('@'))
$code = Invoke-Fetch "$Mirror/-/files/$repo@$(ConvertTo-UrlPath $revision)" $new
if ($script:ended -ne 0) { Stop-With 1 "${Pair}: no list of files from $Mirror (answer $code)" }
$list = Read-List $new
if ($list.Notice) {
    Say "notice of ${Pair}: $($list.Notice)"
    $accepted = Join-Path $state 'accepted'
    $known = (Test-Path -LiteralPath $accepted) -and ((Get-Content -LiteralPath $accepted) -contains $list.Fingerprint)
    if (-not $known) {
        if (-not $AcceptNotice) { Stop-With 2 'read this notice, and run again with -AcceptNotice' }
        Add-Content -LiteralPath $accepted -Value $list.Fingerprint
    }
}

$tree = if ($To) { Join-Path $root $list.Commit } else { Join-Path $root "snapshots\$($list.Commit)" }
$kept = 0
$number = 0
foreach ($entry in $list.Entries) {
    $number++
    $final = Join-Path $tree $entry.Path
    if (Test-File $final $entry) { $kept++; continue }
    Say "[$number/$($list.Entries.Count)] $($entry.Path): $($entry.Size) bytes"
    New-Folder (Split-Path $final)
    $part = Join-Path $state "parts\$($entry.Sha)"
    $url = "$Mirror/$repo/resolve/$([Uri]::EscapeDataString($revision))/$(ConvertTo-UrlPath $entry.Path)"
    Receive-File $url $part $entry
    Move-Item -LiteralPath $part -Destination $final -Force
}
Move-Item -LiteralPath $new -Destination (Join-Path $state "$($list.Commit).list") -Force
if ($To) {
    $before = Get-Version (Join-Path $root 'current')
    if ($before -ne $list.Commit) {
        Set-Version (Join-Path $root 'current') $list.Commit
        if ($before) { Set-Version (Join-Path $root 'previous') $before }
    }
} else {
    $names = @($revision)
    if ($list.Main) { $names += 'main' }
    foreach ($ref in $names) {
        if ($ref -eq $list.Commit) { continue }
        $file = Join-Path $root "refs\$ref"
        New-Folder (Split-Path $file)
        [IO.File]::WriteAllText($file, $list.Commit)
    }
}
Say "${Pair}: $($list.Entries.Count) files: $kept were here, $($list.Entries.Count - $kept) are new"
Say "fingerprint of ${tree}:"
Write-Output $list.Fingerprint
