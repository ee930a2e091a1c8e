# shellcheck shell=bash
# What the scripts of this folder share. To be sourced: it moves to the repository's root and sets $root.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Mesa complains on stderr where this is unset.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' dim='' red='' green='' plain=''
fi

# Headings, notes and errors go to stderr; results alone go to stdout.
step() { printf '%s== %s%s\n' "$bold" "$*" "$plain" >&2; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain" >&2; }
good() { printf '%s%s%s\n' "$green" "$*" "$plain" >&2; }
bad() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; }
die() {
  printf '%s%s: %s%s\n' "$red" "${0##*/}" "$1" "$plain" >&2
  shift
  (($# == 0)) || printf '%s\n' "$@" >&2
  exit 1
}

# The comment at the head of the calling script is its help text.
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

# What ldconfig knows; it lies in a folder that is not on every user's path.
libraries() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true; }
has_library() { [[ $(libraries) == *"$1"* ]]; }

# apt_install REASON PACKAGE… — on Debian and its relatives; elsewhere it says what to install and stops.
apt_install() {
  local reason=$1 sudo=()
  shift
  command -v apt-get >/dev/null || die "$reason" \
    "This is no Debian or Ubuntu machine, so nothing was installed. Install what Debian calls: $*" \
    "(Fedora: vulkan-loader mesa-vulkan-drivers gcc; Arch: vulkan-icd-loader vulkan-swrast gcc), then run this again."
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "$reason" "There is no sudo here. As root, run: apt-get install $*"
    sudo=(sudo)
  fi
  step "$reason; installing $*"
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q)
  { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >&2 </dev/null ||
    die "apt-get could not install $*" "Install them by hand, then run this again."
}

# The pinned Rust toolchain and a linker.
need_rust() {
  # shellcheck disable=SC1091
  command -v cargo >/dev/null || [[ ! -r ${CARGO_HOME:-$HOME/.cargo}/env ]] || . "${CARGO_HOME:-$HOME/.cargo}/env"
  command -v cargo >/dev/null || die "Rust is missing" \
    "Get it from https://rustup.rs (as your own user; the answers it offers are fine), open a new shell, and run this again." \
    "The pinned version in rust-toolchain.toml is fetched by itself. Distributions' own packages are often too old."
  cargo --version >/dev/null || die "cargo does not start" \
    "rust-toolchain.toml pins the version. With rustup, 'rustup toolchain install' in this folder fetches it."
  command -v cc >/dev/null || apt_install "There is no linker (cc)" gcc libc6-dev
}

# The driver files of Vulkan, from the folders that its loader searches.
vulkan_driver_files() {
  local folders folder file
  if [[ -n ${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}} ]]; then
    tr ':' '\n' <<<"${VK_DRIVER_FILES:-$VK_ICD_FILENAMES}"
    return
  fi
  IFS=: read -ra folders <<<"${XDG_CONFIG_HOME:-$HOME/.config}:${XDG_CONFIG_DIRS:-/etc/xdg}:/etc:${XDG_DATA_HOME:-$HOME/.local/share}:${XDG_DATA_DIRS:-/usr/local/share:/usr/share}:/usr/local/share:/usr/share"
  for folder in "${folders[@]}"; do
    for file in "$folder"/vulkan/icd.d/*.json; do
      [[ ! -e $file ]] || printf '%s\n' "$file"
    done
  done
}

# True if one of them names a library that exists.
has_vulkan_driver() {
  local file library
  while read -r file; do
    [[ -r $file ]] || continue
    library=$(sed -n 's/.*"library_path"[^"]*"\([^"]*\)".*/\1/p' "$file")
    case $library in
    '') ;;
    /*) [[ ! -e $library ]] || return 0 ;;
    */*) [[ ! -e ${file%/*}/$library ]] || return 0 ;;
    *) ! has_library "$library" || return 0 ;;
    esac
  done < <(vulkan_driver_files)
  return 1
}

# A Vulkan loader and a driver: the software driver where there is none.
need_vulkan() {
  local missing=()
  has_library libvulkan.so.1 || missing+=(libvulkan1)
  has_vulkan_driver || missing+=(mesa-vulkan-drivers)
  ((${#missing[@]} == 0)) || apt_install "Vulkan is not complete here" "${missing[@]}"
}

# debian_archive — the address of a Debian archive among this machine's apt sources.
debian_archive() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "main" && $1 ~ /\/debian\/?$/ { print $1; exit }'
}

# unpack_once FOLDER WHAT SUITE install|download PACKAGE… — fetches packages of a Debian suite and unpacks them into FOLDER; nothing is installed.
# `install` takes all that they need along, as for a machine that has no package yet. The apt state is one of its own, so no rights are needed.
unpack_once() {
  local folder=$1 what=$2 suite=$3 how=$4 archive fresh deb apt
  shift 4
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || die "this is no Debian or Ubuntu machine"
  archive=$(debian_archive)
  [[ -n $archive ]] || die "no Debian archive is among this machine's apt sources"
  mkdir -p "${folder%/*}"
  fresh=$(mktemp -d "$folder.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$fresh'" EXIT
  mkdir -p "$fresh"/{lists/partial,archives/partial,root}
  : >"$fresh/status"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$archive" "$suite" >"$fresh/sources.list"
  apt=(apt-get -q -o Dir::Etc::sourcelist="$fresh/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::Lists="$fresh/lists" -o Dir::State::status="$fresh/status" -o Dir::Cache::archives="$fresh/archives"
    -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
  step "Fetching $what, once"
  if ! {
    "${apt[@]}" update
    case $how in
    install) "${apt[@]}" install -y --download-only "$@" ;;
    download) (cd "$fresh/archives" && "${apt[@]}" download "$@") ;;
    esac
  } >"$fresh/log" 2>&1 </dev/null; then
    die "$what could not be fetched" "$(tail -n 5 "$fresh/log")"
  fi
  for deb in "$fresh"/archives/*.deb; do dpkg -x "$deb" "$fresh/root"; done
  # Whoever is first wins; another run that unpacked at the same time has the same files.
  mv -T "$fresh/root" "$folder" 2>/dev/null || [[ -e $folder ]] || die "$what could not be put into $folder"
  rm -rf "$fresh"
  trap - EXIT
}

# number FILE KEY… — a number of a JSON object; KEY… is the path to it, objects as they nest. Enough for --stats-json.
number() {
  local text key
  text=$(tr -d ' \n\t' <"$1")
  shift
  for key; do
    [[ $text == *"\"$key\":"* ]] || return 1
    text=${text#*"\"$key\":"}
  done
  printf '%s\n' "${text%%[,\}]*}"
}

# flag_is_true FILE KEY
flag_is_true() { [[ $(number "$1" "$2") == true ]]; }

mebibytes() { awk -v bytes="$1" 'BEGIN { printf "%.2f MiB", bytes / 1048576 }'; }
