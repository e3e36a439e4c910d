# Sourced by the commands of bin/: the two programs that nothing else can bring, Node with npm and cargo.

fail() {
  printf 'error: %s\nfix: %s\n' "$1" "$2" >&2
  exit 1
}

# rustup's folder may be missing from the PATH of a shell that isn't a login shell.
if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
  PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  export PATH
fi

command -v node >/dev/null || fail "there is no Node on the PATH" "install Node 20 or newer, with npm (https://nodejs.org)"
node_major=$(node -p 'process.versions.node.split(".")[0]')
[ "$node_major" -ge 20 ] || fail "Node $(node --version) is too old" "install Node 20 or newer"
command -v npm >/dev/null || fail "there is no npm on the PATH" "install npm; it comes with Node"
command -v cargo >/dev/null || fail "there is no cargo on the PATH" "install Rust with rustup (https://rustup.rs)"
