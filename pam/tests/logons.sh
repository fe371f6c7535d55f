#!/bin/bash
# Runs a scenario of logons.rs with one server. Usage: logons.sh SCENARIO.
source "$(dirname "$0")/server.sh"

open_and_close() {
  create_map 10.77.0.100-10.77.0.109
  write_pam_service logon preload=$PRELOAD
  pamtester -v logon alice open_session close_session
  assert_equal "$(count_leased)" 0
  pamtester -Irhost=192.0.2.7 logon alice open_session
  # pamtester exited without closing the session, like a killed logon. The lease stays until vipool
  # detects that the leader has exited.
  assert_equal "$(count_leased)" 1
  check_status 'r=s["sessions"][0]; assert (r["user"], r["client"]) == ("alice", "192.0.2.7"), r'
  # Root owns the file with the client address. The name of the file does not show the session.
  assert_equal "$(stat -c '%a %U' /run/vipool/client.*)" "640 root"
  assert_equal "$(cut -d ' ' -f 2 /run/vipool/client.*)" 192.0.2.7
  basename /run/vipool/client.* | has_match '^client\.[0-9a-f]{16}$' || fail "$(ls /run/vipool)"
  # The module appends the hook layer to LD_PRELOAD exactly once.
  pamtester logon -E LD_PRELOAD=/x.so alice open_session 2>/dev/null || true
  python3 - "$PRELOAD" <<'END'
import ctypes, os, sys
pam = ctypes.CDLL("libpam.so.0")
CONV = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
class Conv(ctypes.Structure): _fields_ = [("conv", CONV), ("data", ctypes.c_void_p)]
conv = Conv(CONV(lambda *arguments: 19), None)
pamh = ctypes.c_void_p()
pam.pam_getenv.restype = ctypes.c_char_p
environment_before = dict(os.environ)
fds_before = sorted(os.listdir("/proc/self/fd"))
assert pam.pam_start(b"logon", b"bob", ctypes.byref(conv), ctypes.byref(pamh)) == 0
pam.pam_putenv(pamh, b"LD_PRELOAD=/x.so")
assert pam.pam_open_session(pamh, 0) == 0
get = lambda name: pam.pam_getenv(pamh, name)
preload, lease = sys.argv[1].encode(), get(b"VIPOOL_LEASE")
assert get(b"LD_PRELOAD") == b"/x.so:" + preload, get(b"LD_PRELOAD")
assert lease.count(b".") == 4 and get(b"VIPOOL_MAP") is None
# A second pam_open_session in the same transaction keeps the session.
assert pam.pam_open_session(pamh, 0) == 0
assert get(b"VIPOOL_LEASE") == lease and get(b"LD_PRELOAD") == b"/x.so:" + preload
assert pam.pam_close_session(pamh, 0) == 0
assert pam.pam_close_session(pamh, 0) == 0
pam.pam_end(pamh, 0)
# The environment, descriptors and threads of the process are unchanged. The module stays loaded.
assert dict(os.environ) == environment_before
assert sorted(os.listdir("/proc/self/fd")) == fds_before
assert len(os.listdir("/proc/self/task")) == 1
assert "pam_vipool" in open("/proc/self/maps").read()
END
  assert_equal "$(count_leased)" 1
}

only_regular_users_get_sessions() {
  create_map 10.77.0.100-10.77.0.109
  write_pam_service logon
  write_pam_service sudo
  for user in root nobody daemon; do pamtester logon $user open_session; done
  pamtester sudo alice open_session
  pamtester logon nosuchuser open_session || true
  assert_equal "$(count_leased)" 0
  write_pam_service logon min-uid=0
  pamtester logon root open_session
  assert_equal "$(count_leased)" 1
  # With the argument map=, the module opens sessions in that map.
  "$VIPOOL" up --farm /run/farm.toml --map /run/other --no-probe > /run/up.log 2>&1
  write_pam_service logon map=/run/other
  pamtester logon alice open_session
  assert_equal "$(count_leased)" 1
  assert_equal "$("$VIPOOL" status --map /run/other --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["pools"][0]["used"])')" 1
}

exhaustion() {
  local message="No virtual IP address is available for this session, please contact your administrator."
  write_pam_service logon deadline=2
  create_map 10.77.0.100 $'[sessions]\nwhen-exhausted = "pass"'
  pamtester logon alice open_session
  pamtester logon bob open_session 2>&1 | tee /run/out
  grep -qF "$message" /run/out || fail "the user got no message"
  grep -q "successfully opened" /run/out || fail "the logon was refused"
  "$VIPOOL" down --force > /dev/null

  create_map 10.77.0.100 $'[sessions]\nwhen-exhausted = "refuse"'
  pamtester logon alice open_session
  if pamtester logon bob open_session > /run/out 2>&1; then fail "the logon was not refused"; fi
  grep -qF "$message" /run/out || fail "the user got no message"
  "$VIPOOL" down --force > /dev/null

  # The logon waits for an address, but not beyond its deadline.
  create_map 10.77.0.100 $'[sessions]\nwhen-exhausted = "wait 60s"'
  pamtester logon alice open_session
  timeout 60 pamtester logon bob open_session > /run/out 2>&1
  grep -qF "$message" /run/out || fail "the user got no message"
  assert_equal "$(count_leased)" 1
  "$VIPOOL" down --force > /dev/null

  # The group database cannot be read. The pool of alice depends on her groups, so it is unknown.
  # The pool of bob is known, because `users` contains his name.
  local rules=$'[[range]]\naddresses = "10.77.0.101"\npool = "lab"\n[pool.lab]\ngroups = ["students"]\nusers = ["bob"]'
  python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/db/broken")'
  # With `files` as the only source, the C library reports that it cannot read the group file.
  printf 'passwd: files\ngroup: files\n' > /run/nsswitch.conf
  mount --bind /run/nsswitch.conf /etc/nsswitch.conf
  create_map 10.77.0.100 "$rules"$'\n[sessions]\nwhen-exhausted = "refuse"'
  mount --bind /run/db/broken /etc/group
  if pamtester logon alice open_session > /run/out 2>&1; then fail "the logon was not refused"; fi
  grep -qF "$message" /run/out || fail "the user got no message"
  pamtester logon bob open_session
  assert_equal "$(count_leased)" 1
  umount /etc/group
  create_map 10.77.0.100 "$rules"$'\n[sessions]\nwhen-exhausted = "pass"'
  mount --bind /run/db/broken /etc/group
  pamtester logon alice open_session > /run/out 2>&1
  grep -qF "$message" /run/out || fail "the user got no message"
  assert_equal "$(count_leased)" 1
  umount /etc/group
}

faults_never_block_logons() {
  write_pam_service logon deadline=2 odd-argument map=relative
  pamtester logon alice open_session close_session
  mkdir -p /run/vipool
  head -c 100000 /dev/urandom > /run/vipool/map
  pamtester logon alice open_session close_session
  rm /run/vipool/map
  ln -s /etc/passwd /run/vipool/map
  pamtester logon alice open_session close_session
  rm /run/vipool/map
  create_map 10.77.0.100-10.77.0.109
  # This process takes the lock of the writers and keeps it until it is killed.
  python3 -c '
import fcntl, struct, time
f = open("/run/vipool/lock", "r+")
fcntl.fcntl(f, 37, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)) # F_OFD_SETLK
open("/run/locked", "w")
time.sleep(600)' &
  lock_owner=$!
  until [ -e /run/locked ]; do sleep 0.1; done
  timeout 60 pamtester logon alice open_session close_session
  kill $lock_owner
  pamtester logon alice open_session
  assert_equal "$(count_leased)" 1
}

file_permissions() {
  create_map 10.77.0.100-10.77.0.109
  write_pam_service logon preload=$PRELOAD
  pamtester -Irhost=192.0.2.7 logon bob open_session
  as_alice() { setpriv --reuid 2001 --regid 2001 --clear-groups "$@"; }
  for file in map sessions lock reload assigned.json assigner.lock; do
    as_alice sh -c "echo x >> /run/vipool/$file" 2> /dev/null && fail "a user can write $file"
    as_alice rm -f /run/vipool/$file 2> /dev/null && fail "a user can remove $file"
  done
  for file in sessions lock reload assigner.lock client.*; do
    as_alice cat /run/vipool/$file > /dev/null 2>&1 && fail "a user can read $file"
  done
  as_alice touch /run/vipool/new 2> /dev/null && fail "a user can write the directory"
  # The user of the session can read the file with the address of the client, but not write it.
  as_bob() { setpriv --reuid 2002 --regid 2002 --clear-groups "$@"; }
  assert_equal "$(as_bob cut -d ' ' -f 2 /run/vipool/client.*)" 192.0.2.7
  as_bob sh -c 'echo x >> /run/vipool/client.*' 2> /dev/null && fail "a user can fill a client file"
  as_bob sh -c 'chmod u+w /run/vipool/client.*' 2> /dev/null && fail "a user owns a client file"
  # The map, which users can read, contains no user names.
  as_alice cat /run/vipool/map | has_match bob && fail "the map contains a user name"
  # alice may have no access to the build directory, so she runs a copy of the command.
  cp "$VIPOOL" /run/command
  as_alice /run/command --version
  for command in "up --farm /run/farm.toml" "down --force" "session close 7"; do
    as_alice /run/command $command > /dev/null 2>&1 && fail "a user can run: $command"
  done
  assert_equal "$(count_leased)" 1
  # `up` removes the client files of sessions that are not open. `down --force` closes all sessions,
  # so it removes every client file.
  count_client_files() { find /run/vipool -name 'client.*' | wc -l; }
  touch /run/vipool/client.200000000000001.0.5.1.77
  assert_equal "$(count_client_files)" 2
  create_map 10.77.0.100-10.77.0.109
  assert_equal "$(count_client_files)" 1
  "$VIPOOL" down --force
  assert_equal "$(count_client_files)" 0
}

# forget_last_users: hides /var/lib/vipool/last-users, which earlier scenarios may have written.
# This file influences which address a user gets.
forget_last_users() { mkdir -p /var/lib/vipool; mount -t tmpfs tmpfs /var/lib/vipool; }

down_without_space() {
  forget_last_users
  mkdir -p /run/vipool
  mount -t tmpfs -o size=512m,mode=755 tmpfs /run/vipool
  write_pam_service logon
  for has_session in 0 1; do
    create_map 10.77.0.100-10.77.0.109 $'[[program]]\npath = "/bin/sh"\nfeatures = ["loopback"]\nown-ports = [7001]'
    [ $has_session = 1 ] && pamtester -Irhost=192.0.2.7 logon alice open_session
    dd if=/dev/zero of=/run/vipool/fill bs=64k > /dev/null 2>&1 && fail "the file system is not full"
    if [ $has_session = 1 ]; then
      # Without --force, `down` keeps the address of the open session.
      "$VIPOOL" down > /run/down.log 2>&1 || fail "down: $(cat /run/down.log)"
      ip -4 address show dev v0 | has_match 10.77.0.100/32 || fail "the session lost its address"
    fi
    "$VIPOOL" down --force > /run/down.log 2>&1 || fail "down --force: $(cat /run/down.log)"
    ip -4 address show dev v0 | has_match /32 && fail "addresses are left"
    grep -q 7001 /proc/sys/net/ipv4/ip_local_reserved_ports && fail "a port is left"
    for file in map sessions assigned.json; do
      [ ! -e /run/vipool/$file ] || fail "$file is left"
    done
    rm /run/vipool/fill
  done
}

# open_session NUMBER: opens a session and prints its virtual IP, or "none".
open_session() { "$VIPOOL" session open $1 2> /dev/null | grep -o '10[.]77[.]0[.][0-9]*' || echo none; }

lost_map() {
  forget_last_users
  create_map 10.77.0.100-10.77.0.101
  assert_equal "$(open_session 1)" 10.77.0.100
  # A program listens on the address of session 1. Then the map is lost.
  python3 -c 'import socket, sys
s = socket.create_server(("10.77.0.100", 7000)); print("ready", flush=True); sys.stdin.read()' \
    < <(sleep infinity) > /run/server.log &
  local server=$!
  for _ in $(seq 100); do grep -q ready /run/server.log && break; sleep 0.1; done
  rm /run/vipool/map /run/vipool/sessions
  create_map 10.77.0.100-10.77.0.101
  assert_equal "$(open_session 2)" 10.77.0.101
  assert_equal "$(open_session 3)" none
  "$VIPOOL" gc --quiet
  assert_equal "$(open_session 3)" none
  # The program still uses 10.77.0.100. So this address stays on the interface even if the farm no
  # longer contains it.
  "$VIPOOL" session close 2 > /dev/null
  rm /run/vipool/map /run/vipool/sessions
  create_map 10.77.0.101
  ip -4 address show dev v0 | has_match 10.77.0.100/32 || fail "a running server lost its address"
  create_map 10.77.0.100-10.77.0.101
  kill $server; wait $server || true
  "$VIPOOL" gc --quiet
  assert_equal "$(open_session 4)" 10.77.0.101
  assert_equal "$(open_session 3)" 10.77.0.100
}

arbitrary_names() {
  create_map 10.77.0.100-10.77.0.109
  write_pam_service logon
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_permit.so" > /etc/pam.d/plain
  # Add two of the user names with special bytes to the user database. The others stay unknown.
  printf 'al\xffce:x:2101:2101::/tmp:/bin/sh\n../../x:x:2102:2102::/tmp:/bin/sh\n' >> /run/db/passwd
  python3 - <<'END'
import ctypes, os, random
pam = ctypes.CDLL("libpam.so.0")
CONV = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
class Conv(ctypes.Structure): _fields_ = [("conv", CONV), ("data", ctypes.c_void_p)]
conv = Conv(CONV(lambda *arguments: 19), None)
seed = int(os.environ.get("VIPOOL_SEED", random.randrange(1 << 32)))
print("seed", seed)
random.seed(seed)
def random_bytes(length): return bytes(random.choice(range(1, 256)) for _ in range(length))
users = [b"alice", b"bob", b"al\xffce", b"../../x", b"%s%n%n", b"a" * 5000, b"\n\x1b]0;x\x07", b""]
hosts = [b"192.0.2.7", b"fe80::1%eth0", b"%n%s", b"x" * 70000, b"\xff\xfe", b"", b"1.2.3.4\n5.6.7.8"]
os.makedirs("/run/x", exist_ok=True)
def logon(service, user, host, session, preload):
    pamh = ctypes.c_void_p()
    if pam.pam_start(service, user, ctypes.byref(conv), ctypes.byref(pamh)):
        return None
    pam.pam_set_item(pamh, 4, host)
    pam.pam_putenv(pamh, b"XDG_SESSION_ID=" + session)
    pam.pam_putenv(pamh, b"LD_PRELOAD=" + preload)
    statuses = pam.pam_open_session(pamh, 0), pam.pam_close_session(pamh, 0)
    pam.pam_end(pamh, 0)
    return statuses
for i in range(400):
    user = random.choice(users) if i % 2 else random_bytes(random.randrange(80))
    host = random.choice(hosts) if i % 3 else random_bytes(random.randrange(300))
    arguments = user, host, random_bytes(random.randrange(40)), random_bytes(random.randrange(40))
    # libpam itself may fail, for example on the audit record of a very long host name. So both
    # results may be failures, but they must be equal.
    result_without_module, result_with_module = logon(b"plain", *arguments), logon(b"logon", *arguments)
    assert result_without_module == result_with_module, (i, result_without_module, result_with_module, user[:50], host[:50])
END
  assert_equal "$(count_leased)" 0
}

ssh_su_sudo() {
  create_map 10.77.0.100-10.77.0.109
  # su and sudo also call the module, as if it were in common-session. The module ignores these
  # services.
  for name in sudo su su-l; do write_pam_service $name; done
  printf 'alice ALL=(ALL) NOPASSWD: ALL\n' > /run/sudoers; chmod 440 /run/sudoers
  mount --bind /run/sudoers /etc/sudoers
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_loginuid.so" "session required $MODULE preload=$PRELOAD" > /etc/pam.d/sshd
  start_sshd 127.0.0.1
  cat > /run/inside.sh <<'END'
echo "lease $VIPOOL_LEASE"
# Without VIPOOL_LEASE, `vipool run` prefers the audit session to XDG_SESSION_ID, like the module.
echo "joined $(env -u VIPOOL_LEASE XDG_SESSION_ID=c9 /run/command run -- sh -c 'echo $VIPOOL_LEASE')"
sudo -n true
sudo -n su - bob -c 'echo bob ${VIPOOL_LEASE-none}'
sudo -n su bob -c true
exec 3>&1
while [ ! -e /run/go ]; do sleep 0.1; done
END
  cp "$VIPOOL" /run/command; cp "$PRELOAD" /run/
  ssh_to 127.0.0.1 alice sh /run/inside.sh > /run/out 2> /run/err &
  client=$!
  for i in $(seq 600); do grep -q '^bob' /run/out && break; sleep 0.1; done
  cat /run/out /run/err
  assert_equal "$(count_leased)" 1
  check_status 'r=s["sessions"][0]; assert (r["user"], r["client"]) == ("alice", "127.0.0.1"), r'
  assert_equal "$(sed -n 's/^joined //p' /run/out)" "$(sed -n 's/^lease //p' /run/out)"
  grep -q '^bob none' /run/out || fail "su - passed the lease on"
  touch /run/go
  wait $client
  for i in $(seq 600); do [ "$(count_leased)" = 0 ] && break; sleep 0.1; done
  assert_equal "$(count_leased)" 0
}

# add_module_to_service SERVICE: appends the PAM lines of docs/server.md to the machine's own PAM
# file of the service. The lines contain the path of the module of this build.
add_module_to_service() {
  printf '%s\n' "session required pam_loginuid.so" \
    "-session [success=ok ignore=ignore module_unknown=ignore default=bad] $MODULE preload=$PRELOAD" \
    >> /etc/pam.d/$1
}
# write_session_program: writes a program that runs until /run/go exists. The program first records
# LD_PRELOAD and VIPOOL_LEASE in a file of its user.
write_session_program() {
  cat > /run/inside.sh <<'END'
#!/bin/sh
env | grep -E '^(LD_PRELOAD|VIPOOL_LEASE)=' > /run/inside/$(id -un)
while [ ! -e /run/go ]; do sleep 0.1; done
END
  chmod 755 /run/inside.sh
  mkdir -m 1777 /run/inside
}
# wait_for_session USER: waits until the program of this user has recorded the variables.
wait_for_session() {
  for i in $(seq 600); do grep -qs VIPOOL_LEASE /run/inside/$1 && break; sleep 0.1; done
  grep -qs "LD_PRELOAD=.*$PRELOAD" /run/inside/$1 || fail "$1: $(cat /run/inside/* 2>&1)"
}
# wait_until_all_closed: waits until no virtual IP is leased.
wait_until_all_closed() {
  for i in $(seq 600); do [ "$(count_leased)" = 0 ] && return; sleep 0.1; done
  fail "sessions are still open: $("$VIPOOL" status)"
}

# Runs login(1) on a terminal, with the options that getty and telnetd use.
login_on_terminal() {
  create_map 10.77.0.100-10.77.0.109
  add_module_to_service login
  write_session_program
  # script(1) provides the terminal.
  script -qec "login -h 192.0.2.7 -f alice" /run/terminal <<< '/run/inside.sh; exit' > /run/out &
  local terminal=$!
  wait_for_session alice || { cat /run/out; exit 1; }
  check_status 'r=s["sessions"][0]; assert (r["user"], r["client"]) == ("alice", "192.0.2.7"), r'
  touch /run/go
  wait $terminal
  wait_until_all_closed
}

# Tests the complete PAM stack of a display manager, without the display manager itself.
display_manager() {
  create_map 10.77.0.100-10.77.0.109
  add_module_to_service lightdm
  pamtester -I tty=:0 lightdm alice open_session close_session
  assert_equal "$(count_leased)" 0
  pamtester -I tty=:0 lightdm alice open_session
  check_status 'r=s["sessions"][0]; assert (r["user"], r["client"]) == ("alice", None), r'
}

# If addresses are allocated at first use, the logon opens no session. It sets LD_PRELOAD and
# VIPOOL_MAP, but not VIPOOL_LEASE.
first_use() {
  create_map 10.77.0.100-10.77.0.109 $'[sessions]\nallocate = "first-use"'
  write_pam_service logon preload=$PRELOAD map=/run/vipool/.
  # pam_exec runs the program with the environment of the session.
  cat > /run/inside.sh <<'END'
#!/bin/sh
env | grep -E '^(LD_PRELOAD|VIPOOL_)' > /run/inside.env
END
  chmod 755 /run/inside.sh
  echo "session required pam_exec.so /run/inside.sh" >> /etc/pam.d/logon
  pamtester logon alice open_session close_session
  assert_equal "$(count_leased)" 0
  assert_equal "$(sort /run/inside.env | tr '\n' ' ')" "LD_PRELOAD=$PRELOAD VIPOOL_MAP=/run/vipool/. "
  check_status 'assert s["sessions"] == [], s'
}

# Starts desktops through xrdp-sesman. The requests arrive on the loopback interface, as with xrdp.
# Two users each get an X server and a virtual IP. A logoff closes the session.
desktops() {
  # X servers leave sockets and locks in /tmp, so the scenario replaces /tmp. The build directory
  # may be in /tmp too, so the scenario first copies the files of the build.
  mkdir /run/built
  for name in VIPOOL MODULE PRELOAD; do
    cp "${!name}" /run/built
    declare -g "$name=/run/built/$(basename "${!name}")"
  done
  mkdir -m 1777 /run/tmp; mount --bind /run/tmp /tmp; cd /
  create_map 10.77.0.100-10.77.0.109
  add_module_to_service xrdp-sesman
  write_session_program
  # Set passwords, because the machine's common-auth requires them.
  sed -E "s#^(alice|bob):\*:#\1:$(openssl passwd -6 secret):#" /etc/shadow > /run/shadow
  cat /run/shadow > /etc/shadow
  sed 's|^DefaultWindowManager=.*|DefaultWindowManager=/run/inside.sh|; s|^EnableUserWindowManager=.*|EnableUserWindowManager=false|; s|^EnableSyslog=.*|EnableSyslog=false|; s|^LogFile=.*|LogFile=/run/sesman.log|' \
    /etc/xrdp/sesman.ini > /run/sesman.ini
  # xrdp-sesman listens on ::1, and its client connects to localhost. So localhost must be ::1.
  printf '%s localhost\n' ::1 127.0.0.1 > /run/hosts; mount --bind /run/hosts /etc/hosts
  xrdp-sesman -n -c /run/sesman.ini > /run/sesman.out 2>&1 &
  for i in $(seq 100); do ss -Hltn 'sport = :3350' | has_match . && break; sleep 0.1; done
  for user in alice bob; do
    xrdp-sesrun -c /run/sesman.ini -t Xvnc -p secret $user > /run/sesrun 2>&1 || { cat /run/sesrun /run/sesman.log; fail "$user"; }
  done
  wait_for_session alice || { cat /run/sesman.log; exit 1; }
  wait_for_session bob
  check_status '
r = s["sessions"]
assert sorted(x["user"] for x in r) == ["alice", "bob"], r
assert len({x["virtual_ip"][0] for x in r}) == 2, r'
  touch /run/go
  wait_until_all_closed
}

"$1"
