#!/bin/sh
# hubpin-pull: fetch one locked version from a hubpin mirror, and check every byte of it.
#
# It needs a POSIX shell, curl or wget, sha256sum, and the few tools that coreutils and busybox
# both have. Two layouts:
#
#   the cache of huggingface_hub (default): stock libraries find it with HF_HUB_OFFLINE=1
#     models--org--name/blobs/<etag>, refs/<revision>, snapshots/<commit>/<path>, .hubpin/
#   a plain folder (--to DIR): versions side by side, and a link to the one in use
#     <commit>/<path>, current -> <commit>, previous -> <commit>, .hubpin/
#
# .hubpin/<commit>.list   what the mirror said about a version (its route /-/files/…)
# .hubpin/accepted        fingerprints whose notice was accepted
set -eu
LC_ALL=C
export LC_ALL
# The mirror is on this network: nobody is asked in between.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

agent=hubpin-pull/1
mirror=${HF_ENDPOINT:-}
cache='' folder='' pair='' wanted='' accept='' quiet='' act=pull work='' code=0 told=''

usage() {
    cat <<'END'
usage: hubpin-pull.sh [options] REPO@REVISION
       hubpin-pull.sh --to DIR --back
       hubpin-pull.sh --to DIR --check [REPO@REVISION]

Fetches a locked version from a hubpin mirror, resumes, checks every file and prints the
fingerprint. Run it again to check what is here; whatever is missing or altered is fetched.

  --mirror URL         the mirror, for example http://mirror:8090 (default: $HF_ENDPOINT)
  --cache DIR          the cache of huggingface_hub (default: as huggingface_hub looks for it)
  --to DIR             a plain folder instead: DIR/<commit>/…, and the link DIR/current
  --back               switch DIR/current to the version before, and back again
  --check              ask no mirror, only check what is here
  --fingerprint F      refuse anything but this fingerprint
  --accept-notice      accept the notice of this version (once per fingerprint)
  --quiet              say only what went wrong

Exit status: 0 done, 1 it failed, 2 what you gave is wrong or a notice has to be accepted.
END
}

say() {
    [ -n "$quiet" ] || printf 'hubpin-pull: %s\n' "$*" >&2
}

fail() {
    printf 'hubpin-pull: %s\n' "$*" >&2
    exit 1
}

wrong() {
    printf 'hubpin-pull: %s\n' "$*" >&2
    exit 2
}

# --- words ---------------------------------------------------------------------------------------

is_hex() { # TEXT LENGTH
    [ "${#1}" -eq "$2" ] || return 1
    case $1 in *[!0-9a-f]*) return 1 ;; esac
}

is_path() { # TEXT: relative, and leading nowhere else
    case /$1/ in *//* | */./* | */../* | *\\* | *[[:cntrl:]]*) return 1 ;; esac
}

encode() { # TEXT [slashes]: as a part of a URL
    case $1 in
    */*) [ -z "${2-}" ] && plain='*[!A-Za-z0-9._/-]*' || plain='*' ;;
    *) plain='*[!A-Za-z0-9._/-]*' ;;
    esac
    # shellcheck disable=SC2254  # it is a pattern
    case $1 in
    $plain) ;;
    *)
        printf %s "$1"
        return
        ;;
    esac
    encoded=''
    for byte in $(printf %s "$1" | od -An -v -tx1); do
        if [ "$byte" = 2f ] && [ -z "${2-}" ]; then encoded=$encoded/; else encoded=$encoded%$byte; fi
    done
    printf %s "$encoded"
}

absolute() {
    case $1 in /*) printf %s "$1" ;; *) printf %s "$PWD/$1" ;; esac
}

# --- files ---------------------------------------------------------------------------------------

digest_of() { # FILE: its sha256, or nothing if it cannot be read
    summed=$($hasher <"$1") || summed=
    printf %s "${summed%% *}"
}

size_of() {
    if [ -f "$1" ]; then printf %s "$(($(wc -c <"$1")))"; else printf 0; fi
}

has_line() { # FILE LINE
    [ -f "$1" ] || return 1
    while IFS= read -r held; do
        if [ "$held" = "$2" ]; then return 0; fi
    done <"$1"
    return 1
}

replace() { # LINK TARGET: in one step, whatever the link was
    if [ -e "$1" ] && [ ! -L "$1" ]; then fail "$1 is in the way: it is not a link"; fi
    rm -f "$work/link"
    ln -s "$2" "$work/link"
    # GNU and busybox know -T, BSD and macOS -h: without either, mv goes into the folder.
    mv -fT "$work/link" "$1" 2>/dev/null || mv -fh "$work/link" "$1" 2>/dev/null ||
        ln -sfn "$2" "$1"
}

leave() { # what nobody needs is gone
    [ -n "$work" ] || return 0
    rm -rf "$work"
    # A version that was refused leaves no folder that others take for a broken cache.
    if [ ! -e "$folder/current" ] && [ ! -e "${repo:-$folder}/snapshots" ]; then
        rm -f "$state/lock"
        rmdir "$state" "${state%/*}" 2>/dev/null || :
    fi
}

open_state() { # where we keep what we know, and that nobody else works there
    mkdir -p "$state" || fail "cannot write to $state"
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$state/lock"
        flock -n 9 || fail "another hubpin-pull is at work in $state"
    fi
    work=$state/work.$$
    mkdir "$work"
}

# --- the mirror ----------------------------------------------------------------------------------

# What FILE lacks of URL is appended to it. 0: done; 1: try again; 2: no use. $told says why.
fetch() { # URL FILE
    rm -f "$work/head" "$work/said"
    ended=0
    case $client in
    curl)
        curl -q -g "$bar" -f -C - --connect-timeout 10 --speed-limit 1 --speed-time 120 \
            -A "$agent" -D "$work/head" -o "$2" "$1" </dev/null 2>"$errors" || ended=$?
        ;;
    wget)
        wget --no-config -nv -S -c -t 1 -T 120 -U "$agent" -O "$2" "$1" </dev/null 2>"$work/said" || ended=$?
        ;;
    busybox)
        wget -q -S -c -U "$agent" -O "$2" "$1" </dev/null 2>"$work/said" || ended=$?
        ;;
    esac
    if [ "$ended" -eq 0 ]; then return 0; fi
    read_answer
    case $client-$ended in
    curl-23) fail "cannot write $2: is the disk full?" ;;
    curl-33) rm -f "$2" ;; # the mirror sends all of it again, so what is here may be wrong
    wget-3) fail "cannot write $2: is the disk full?" ;;
    esac
    case $code in
    416) rm -f "$2" ;;
    408 | 429) ;;
    4??) return 2 ;;
    esac
    return 1
}

read_answer() { # sets $code and $told
    code=0 told=''
    for file in "$work/head" "$work/said"; do
        [ -f "$file" ] || continue
        while IFS= read -r line || [ -n "$line" ]; do
            line=${line%"$return"}
            line=${line#"${line%%[! ]*}"}
            case $line in
            HTTP/*)
                code=${line#* }
                code=${code%% *}
                ;;
            [Xx]-[Ee]rror-[Mm]essage:*) told=${line#*: } ;;
            curl:* | wget:*) [ -n "$told" ] || told=$line ;;
            esac
        done <"$file"
    done
    if [ -z "$told" ] && [ "$code" -ge 400 ]; then told="it answers $code"; fi
    if [ -z "$told" ]; then told="the connection to $mirror failed or broke"; fi
}

wait_or() { # MESSAGE: before the next try, or give up with it
    case $code in
    429 | 503) [ "$tries" -lt 60 ] || fail "$1" ;; # it asks for patience
    *) [ "$tries" -lt 5 ] || fail "$1" ;;
    esac
    if [ "$tries" -lt 5 ]; then sleep "$tries"; else sleep 5; fi
}

# FILE has the right bytes afterwards. What was fetched of it before is not fetched again.
obtain() { # URL FILE SHA256 SIZE NAME
    tries=0 bad=0
    while :; do
        [ -f "$2" ] || : >"$2"
        have=$(size_of "$2")
        if [ "$have" -ge "$4" ]; then
            if [ "$have" -eq "$4" ] && [ "$(digest_of "$2")" = "$3" ]; then return 0; fi
            bad=$((bad + 1))
            [ "$bad" -le 2 ] || fail "$5: the mirror sends other bytes than its list says. Run this again, and tell its admin if it stays so"
            [ "$have" -eq 0 ] || say "$5: wrong bytes came; fetching it from the start"
            rm -f "$2"
            have=0
        fi
        [ "$have" -eq 0 ] || say "$5: going on after $have bytes"
        again=0
        fetch "$1" "$2" || again=$?
        if [ "$again" -eq 0 ]; then
            [ "$(size_of "$2")" -lt "$4" ] || continue
            told="the answer was too short"
        fi
        [ "$again" -ne 2 ] || fail "$5: $mirror refuses: $told"
        if [ "$(size_of "$2")" -gt "$have" ]; then tries=0; else tries=$((tries + 1)); fi
        wait_or "$5: $told. What came is kept, and the next run goes on there"
    done
}

ask_for_list() {
    tries=0
    while :; do
        rm -f "$work/list"
        again=0
        fetch "$mirror/-/files/$(encode "$pair")" "$work/list" || again=$?
        [ "$again" -ne 0 ] || return 0
        [ "$again" -ne 2 ] || fail "$pair: $mirror refuses: $told"
        tries=$((tries + 1))
        wait_or "$pair: $told"
    done
}

# --- a version -----------------------------------------------------------------------------------

split() { # LINE of a list
    sha=${1%% *}
    rest=${1#* }
    etag=${rest%% *}
    rest=${rest#* }
    size=${rest%% *}
    path=${rest#* }
}

# Sets $commit, $fingerprint, $notice, $main, $count and $bytes; whatever is odd is refused.
read_list() { # FILE
    version='' commit='' fingerprint='' notice='' main='' count=0 bytes=0
    while IFS= read -r line; do
        case $line in
        '# hubpin-files 1') version=1 ;;
        '# commit '*) commit=${line#'# commit '} ;;
        '# fingerprint '*) fingerprint=${line#'# fingerprint '} ;;
        '# ref main') main=1 ;;
        '# notice '*) notice=${line#'# notice '} ;;
        '#'*) ;;
        *)
            split "$line"
            case $size in '' | *[!0-9]*) fail "the list of files is damaged: $line" ;; esac
            is_hex "$sha" 64 || fail "the list of files is damaged: $line"
            is_hex "$etag" 40 || is_hex "$etag" 64 || fail "the list of files is damaged: $line"
            is_path "$path" || fail "the list of files has a name that leads elsewhere"
            count=$((count + 1)) bytes=$((bytes + size))
            printf '%s  %s\n' "$sha" "$path" >&4
            ;;
        esac
    done <"$1" 4>"$work/sums"
    [ -n "$version" ] || fail "that is no list of files; is ${mirror:-this} a hubpin mirror that is new enough?"
    is_hex "$commit" 40 || fail "the list of files names no commit"
    found=sha256:$(digest_of "$work/sums")
    [ "$found" = "$fingerprint" ] ||
        fail "the files on the list do not add up to its fingerprint: $fingerprint was said, $found was found"
    if [ -n "$wanted" ] && [ "$found" != "$wanted" ]; then
        fail "wrong fingerprint: $wanted was wanted, and this version has $found. Nothing was changed"
    fi
}

need_consent() {
    [ -n "$notice" ] || return 0
    printf 'hubpin-pull: notice of %s: %s\n' "$pair" "$notice" >&2
    if has_line "$state/accepted" "$fingerprint"; then return 0; fi
    [ -n "$accept" ] || wrong "read this notice, and run again with --accept-notice"
    printf '%s\n' "$fingerprint" >>"$state/accepted"
}

same_bytes() { # a file of the version in use that has $sha: its path, or nothing
    [ -n "$before" ] && [ -f "$state/$before.list" ] || return 0
    while IFS= read -r other; do
        case $other in
        "$sha "*)
            other=${other#* * * }
            printf %s "$folder/$before/$other"
            return
            ;;
        esac
    done <"$state/$before.list"
}

is_right() { # FILE, by $sha and $size
    [ -f "$1" ] && [ "$(size_of "$1")" -eq "$size" ] && [ "$(digest_of "$1")" = "$sha" ]
}

# Every file of the list is at its place afterwards. Sets $fetched and $kept.
provide() {
    fetched=0 kept=0 number=0
    revision_part=$(encode "${pair#*@}" slashes)
    while IFS= read -r line <&3; do
        case $line in '#'*) continue ;; esac
        split "$line"
        number=$((number + 1))
        if [ -n "$folder" ]; then
            final=$tree/$path part=$parts/$sha
        else
            final=$repo/blobs/$etag part=$repo/blobs/$etag.hubpin-part
        fi
        if is_right "$final"; then
            kept=$((kept + 1))
        else
            if [ -e "$final" ]; then say "$path: altered on disk"; fi
            mkdir -p "${final%/*}" || fail "cannot write to ${final%/*}"
            copy=''
            if [ -n "$folder" ] && [ ! -f "$part" ]; then copy=$(same_bytes); fi
            if [ -n "$copy" ] && [ "$copy" != "$final" ] && is_right "$copy"; then
                say "[$number/$count] $path: $size bytes, copied from $before"
                cp "$copy" "$part" || fail "cannot write $part: is the disk full?"
            else
                say "[$number/$count] $path: $size bytes"
            fi
            obtain "$mirror/${pair%%@*}/resolve/$revision_part/$(encode "$path")" \
                "$part" "$sha" "$size" "$path"
            # A power cut must not leave a version that only looks whole.
            sync "$part" 2>/dev/null || :
            mv -f "$part" "$final" || fail "cannot write $final"
            fetched=$((fetched + 1))
        fi
        if [ -z "$folder" ]; then link_to_blob; fi
    done 3<"$work/list"
}

link_to_blob() { # $path of the snapshot, relative as the Hub's client makes it
    place=$tree/$path
    target=../../blobs/$etag
    deeper=$path
    while :; do
        case $deeper in */*) deeper=${deeper#*/} target=../$target ;; *) break ;; esac
    done
    if [ -L "$place" ] && [ "$(readlink "$place")" = "$target" ]; then return 0; fi
    mkdir -p "${place%/*}" || fail "cannot write to ${place%/*}"
    rm -f "$place"
    # File systems without links get a copy, as the Hub's client does.
    ln -s "$target" "$place" 2>/dev/null || cp "$repo/blobs/$etag" "$place" ||
        fail "cannot write $place"
}

keep_list() {
    printf '# asked %s\n' "$pair" >>"$work/list"
    mv -f "$work/list" "$state/$commit.list"
}

write_ref() { # REVISION
    file=$repo/refs/$1
    mkdir -p "${file%/*}" || fail "cannot write $file"
    printf %s "$commit" >"$work/ref"
    mv -f "$work/ref" "$file" || fail "cannot write $file"
}

# What is on disk is what the list of the version says. Sets $fingerprint.
check() { # TREE
    saved=$state/${1##*/}.list
    [ -f "$saved" ] || fail "nothing is known about ${1##*/}: fetch it first"
    read_list "$saved"
    bad=0
    while IFS= read -r line <&3; do
        case $line in '#'*) continue ;; esac
        split "$line"
        if is_right "$1/$path"; then continue; fi
        bad=$((bad + 1))
        printf 'hubpin-pull: %s is missing or altered\n' "$1/$path" >&2
    done 3<"$saved"
    [ "$bad" -eq 0 ] || fail "$bad of $count files are not as they were locked; fetch the version again"
}

# --- what is asked -------------------------------------------------------------------------------

pull() {
    ask_for_list
    read_list "$work/list"
    need_consent
    if [ -n "$folder" ]; then
        before=''
        if [ -L "$folder/current" ]; then before=$(readlink "$folder/current"); fi
        parts=$state/parts
        mkdir -p "$parts"
        tree=$folder/$commit
        # A version has its name only when it is whole.
        if [ ! -d "$tree" ]; then tree=$state/$commit.new; fi
        mkdir -p "$tree"
        provide
        keep_list
        if [ "$tree" != "$folder/$commit" ]; then mv "$tree" "$folder/$commit"; fi
        tree=$folder/$commit
        if [ "$before" != "$commit" ]; then
            replace "$folder/current" "$commit"
            if [ -n "$before" ]; then replace "$folder/previous" "$before"; fi
        fi
    else
        tree=$repo/snapshots/$commit
        mkdir -p "$tree" "$repo/blobs" "$repo/refs" || fail "cannot write to $repo"
        provide
        keep_list
        if [ "${pair#*@}" != "$commit" ]; then write_ref "${pair#*@}"; fi
        if [ -n "$main" ] && [ "${pair#*@}" != main ]; then write_ref main; fi
    fi
    say "$pair: $count files, $bytes bytes: $kept were here, $fetched are new"
}

back() {
    [ -L "$folder/previous" ] || wrong "there is no version before the one in $folder/current"
    before=$(readlink "$folder/current")
    tree=$folder/$(readlink "$folder/previous")
    check "$tree"
    replace "$folder/current" "${tree##*/}"
    replace "$folder/previous" "$before"
    say "$folder/current is ${tree##*/} again"
}

check_only() {
    if [ -n "$folder" ]; then
        [ -L "$folder/current" ] || wrong "$folder has no version in use"
        tree=$folder/$(readlink "$folder/current")
        saved=$state/${tree##*/}.list
        if [ -n "$pair" ] && ! has_line "$saved" "# asked $pair" && ! has_line "$saved" "# pair $pair"; then
            fail "$pair is not the version in use"
        fi
    elif is_hex "${pair#*@}" 40; then
        tree=$repo/snapshots/${pair#*@}
    else
        [ -f "$repo/refs/${pair#*@}" ] || fail "$pair is not here"
        tree=$repo/snapshots/$(cat "$repo/refs/${pair#*@}")
    fi
    check "$tree"
    say "$count files are as they were locked"
}

while [ $# -gt 0 ]; do
    case $1 in
    --mirror | --cache | --to | --fingerprint)
        [ $# -ge 2 ] || wrong "$1 needs a value; --help says more"
        case $1 in
        --mirror) mirror=$2 ;;
        --cache) cache=$2 ;;
        --to) folder=$2 ;;
        --fingerprint) wanted=$2 ;;
        esac
        shift
        ;;
    --back) act=back ;;
    --check) act=check_only ;;
    --accept-notice) accept=1 ;;
    --quiet) quiet=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*) wrong "there is no option $1; --help says which there are" ;;
    *)
        [ -z "$pair" ] || wrong "one version at a time: $pair, or $1?"
        pair=$1
        ;;
    esac
    shift
done

return=$(printf '\r')
mirror=${mirror%/}
wanted=${wanted#sha256:}
if [ -n "$wanted" ]; then
    is_hex "$wanted" 64 || wrong "a fingerprint is sha256: and 64 hex digits"
    wanted=sha256:$wanted
fi
if [ -n "$folder" ] && [ -n "$cache" ]; then wrong "--to or --cache, not both"; fi
if [ -z "$folder" ] && [ "$act" = back ]; then wrong "--back needs --to DIR"; fi
if [ -n "$pair" ] || [ -z "$folder" ] || [ "$act" = pull ]; then
    case $pair in
    ?*@?*) ;;
    *) wrong "write REPO@REVISION, for example org/model@main; --help says more" ;;
    esac
    name=${pair%%@*}
    is_path "$name/${pair#*@}" || wrong "$pair: write REPO@REVISION"
    case $name in *[!A-Za-z0-9._/-]* | *--*) wrong "$name is no name of a repository" ;; esac
    case $name in
    datasets/* | spaces/*) kind=${name%%/*} name=${name#*/} ;;
    *) kind=models ;;
    esac
    case $name in
    */*/*) wrong "$name is no name of a repository" ;;
    */*) name=${name%/*}--${name#*/} ;;
    esac
fi
if command -v sha256sum >/dev/null 2>&1; then
    hasher=sha256sum
elif command -v shasum >/dev/null 2>&1; then
    hasher='shasum -a 256'
else
    wrong "sha256sum is needed"
fi
if [ "$act" = pull ]; then
    case $mirror in
    http://?* | https://?*) ;;
    *) wrong "where is the mirror? --mirror http://mirror:8090, or HF_ENDPOINT" ;;
    esac
    if command -v curl >/dev/null 2>&1; then
        client=curl
    elif wget --version >/dev/null 2>&1; then
        client=wget
    elif command -v wget >/dev/null 2>&1; then
        client=busybox
    else
        wrong "curl or wget is needed"
    fi
fi

if [ -n "$folder" ]; then
    folder=$(absolute "$folder")
    state=$folder/.hubpin
else
    home=${HF_HOME:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/huggingface}
    repo=$(absolute "${cache:-${HF_HUB_CACHE:-$home/hub}}")/$kind--$name
    state=$repo/.hubpin
fi
[ "$act" = pull ] || [ -d "$state" ] || fail "nothing is in ${state%/*}"
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
open_state
# On a terminal curl shows how far it is.
errors=$work/said bar=-sS
if [ -z "$quiet" ] && [ -t 2 ]; then errors=/dev/stderr bar=-#; fi
$act
say "fingerprint of $tree:"
printf '%s\n' "$fingerprint"
