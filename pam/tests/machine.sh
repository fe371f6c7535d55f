# The common setup of the scenarios. A scenario script sources this file inside its own mount,
# network and PID namespaces. The setup creates a new /run, a user database with alice and bob,
# and a PAM configuration. With FILES=machine, the setup changes none of these: systemd.sh creates a
# whole machine for its scenario.
set -euo pipefail

# fail MESSAGE: ends the scenario with a failure.
fail() { echo "FAILED: $*" >&2; exit 1; }
# assert_equal ACTUAL EXPECTED: fails if the texts differ.
assert_equal() { [ "$1" = "$2" ] || fail "line ${BASH_LINENO[0]}: '$1' is not '$2'"; }
# has_match PATTERN: succeeds if a line of the input matches. It reads all lines. `grep -q` would
# exit at the first match, and a command that still writes to the pipe would fail.
has_match() { [ "$(grep -cE -- "$1")" != 0 ]; }

# add_test_users DIRECTORY: adds alice and bob to the user database in that directory.
add_test_users() {
  local uid name
  for uid in 2001 2002; do
    name=$([ $uid = 2001 ] && echo alice || echo bob)
    echo "$name:x:$uid:$uid::/tmp:/bin/sh" >> $1/passwd
    echo "$name:*:19000:0:99999:7:::" >> $1/shadow
    echo "$name:x:$uid:" >> $1/group
  done
}

if [ "${FILES-private}" = private ]; then
  mount -t tmpfs tmpfs /run
  mkdir /run/sshd /run/db /run/pam.d
  for file in passwd shadow group; do cp /etc/$file /run/db/$file; done
  add_test_users /run/db
  for file in passwd shadow group; do mount --bind /run/db/$file /etc/$file; done
  cp /etc/pam.d/* /run/pam.d/
  mount --bind /run/pam.d /etc/pam.d
fi

# write_pam_service NAME ARGUMENTS...: writes a PAM service that calls the module.
write_pam_service() {
  local name=$1; shift
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required $MODULE $*" > /etc/pam.d/$name
}

# start_sshd ADDRESS [NAMESPACE]: starts an sshd on port 2222. Creates the keys if they are missing.
start_sshd() {
  mkdir -p /run/ssh
  [ -e /run/ssh/host ] || ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host
  [ -e /run/ssh/id ] || ssh-keygen -q -t ed25519 -N '' -f /run/ssh/id
  chmod 711 /run/ssh; cp /run/ssh/id.pub /run/ssh/keys; chmod 644 /run/ssh/keys
  cat > /run/ssh/config <<END
ListenAddress $1:2222
HostKey /run/ssh/host
AuthorizedKeysFile /run/ssh/keys
StrictModes no
UsePAM yes
PidFile none
MaxStartups 1000
PrintMotd no
PrintLastLog no
END
  local sshd=$(command -v sshd || echo /usr/sbin/sshd)
  ${2:+ip netns exec $2} $sshd -f /run/ssh/config -E /run/ssh/log
}

# ssh_to ADDRESS USER COMMAND...: logs on by ssh as this user and runs the command.
ssh_to() {
  local address=$1 user=$2; shift 2
  ssh -F none -p 2222 -i /run/ssh/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o LogLevel=ERROR -o ConnectTimeout=60 "$user@$address" "$@"
}
