# shellcheck shell=bash
# What the scripts of this directory share: saying what happens, installing what is missing,
# and becoming the ordinary user that rootless containers are tried as.
#
# Every function either leaves the machine able to do what its name says or says plainly what is
# missing and returns non-zero. Nothing is installed silently.

TEST_USER=pellicle-test

repo_root() { cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P; }
say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Runs a command as root: itself, through sudo, or not at all (status 1).
as_root() {
  if is_root; then "$@"
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo "$@"
  else return 1
  fi
}

# need COMMAND PACKAGE WHY: makes COMMAND available, by installing the Debian package if it must.
need() {
  local command=$1 package=$2 why=$3
  command -v "$command" >/dev/null && return 0
  if ! command -v apt-get >/dev/null; then
    warn "$command is missing ($why); install it with this system's package manager (Debian calls the package $package)"
    return 1
  fi
  say "installing the Debian package $package: $why"
  if ! as_root true; then
    warn "cannot install $package: not root, and sudo is not available. Ask an administrator to run: apt-get install $package"
    return 1
  fi
  apt_install "$package" || { warn "$package could not be installed"; return 1; }
  command -v "$command" >/dev/null
}

# need_crate NAME VERSION WHY: the program NAME of that crate, built into the cache, which joins the path.
need_crate() {
  local name=$1 version=$2 why=$3 root log
  root=${PELLICLE_CACHE:-$(repo_root)/.cache}/cargo
  PATH=$root/bin:$PATH
  grep -qs "\"$name $version " "$root/.crates2.json" && [ -x "$root/bin/$name" ] && return 0
  say "building $name $version from crates.io: $why"
  log=$(mktemp)
  if ! cargo install --quiet --locked --root "$root" --version "$version" "$name" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    warn "$name could not be built"
    return 1
  fi
  rm -f "$log"
}

apt_install() {
  local log
  log=$(mktemp)
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; then
    # The lists of a fresh machine are empty or old.
    as_root apt-get update >>"$log" 2>&1 || true
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1; then
      tail -n 5 "$log" >&2
      rm -f "$log"
      return 1
    fi
  fi
  rm -f "$log"
}

# Rust of at least the version in Cargo.toml, from the path, from ~/.cargo, or from rustup.
ensure_rust() {
  local wanted have
  [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(repo_root)/Cargo.toml" | head -n 1)
  if ! command -v cargo >/dev/null && command -v rustup >/dev/null; then
    say "installing the Rust toolchain with rustup"
    rustup toolchain install stable --profile minimal >&2 || true
  fi
  command -v cargo >/dev/null || die "cargo is missing: install Rust $wanted or newer (https://rustup.rs), then run this again"
  have=$(cargo --version | awk '{print $2}')
  if [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
    die "Rust $wanted or newer is needed, this is $have: run 'rustup update', then this again"
  fi
  need cc gcc "Rust links with the C compiler" || die "no C compiler"
}

# Makes /dev/fuse there and usable by everyone, as udev does on a full system.
ensure_fuse() {
  if [ ! -e /dev/fuse ]; then
    as_root modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || { is_root && mknod -m 0666 /dev/fuse c 10 229 2>/dev/null; } || true
    [ -e /dev/fuse ] || { warn "/dev/fuse is missing: the kernel has no FUSE (modprobe fuse), or this container hides it (--device /dev/fuse)"; return 1; }
  fi
  if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    if as_root true; then
      say "making /dev/fuse usable by ordinary users: chmod 0666 /dev/fuse (what udev's rules do)"
      as_root chmod 0666 /dev/fuse
    elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
      warn "/dev/fuse cannot be opened by $(id -un). Ask an administrator to run: chmod 0666 /dev/fuse"
      return 1
    fi
  fi
}

# What a rootless container needs of the machine besides /dev/fuse.
ensure_rootless() {
  need newuidmap uidmap "rootless containers map subordinate user ids with it" || warn "without newuidmap a container has a single id"
  need fusermount3 fuse3 "'pellicle mount' as an ordinary user goes through it" || warn "without fusermount3 'pellicle mount' works as root only"
  local file=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
  if [ -r $file ] && [ "$(cat $file)" = 1 ]; then
    warn "this kernel restricts unprivileged user namespaces; if containers do not start: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
  fi
}

# has_subids USER: whether subuid(5) and subgid(5) give USER a range.
has_subids() {
  grep -qE "^($1|$(id -u "$1")):" /etc/subuid 2>/dev/null && grep -qE "^($1|$(id -u "$1")):" /etc/subgid 2>/dev/null
}

# The ordinary user that root tries rootless containers as. Root only.
ensure_test_user() {
  if ! id "$TEST_USER" >/dev/null 2>&1; then
    say "making the ordinary user $TEST_USER (with subordinate ids), to run containers without root"
    [ -e /etc/subuid ] || : >/etc/subuid
    [ -e /etc/subgid ] || : >/etc/subgid
    useradd -m -s /bin/bash "$TEST_USER" || { warn "useradd failed"; return 1; }
  fi
  if ! has_subids "$TEST_USER"; then
    say "giving $TEST_USER subordinate ids"
    local next
    next=$(awk -F: 'BEGIN { m = 100000 } $2 + $3 > m { m = $2 + $3 } END { print m }' /etc/subuid /etc/subgid)
    usermod --add-subuids "$next-$((next + 65535))" --add-subgids "$next-$((next + 65535))" "$TEST_USER"
  fi
}

# as_test_user COMMAND...: runs it as the test user with a login-like environment. Root only.
as_test_user() {
  local home
  home=$(getent passwd "$TEST_USER" | cut -d: -f6)
  (cd "$home" && setpriv --reuid "$TEST_USER" --regid "$(id -g "$TEST_USER")" --init-groups \
    env -i HOME="$home" USER="$TEST_USER" LOGNAME="$TEST_USER" SHELL=/bin/bash LANG=C.UTF-8 \
    TERM="${TERM:-dumb}" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$@")
}
