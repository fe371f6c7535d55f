#!/bin/bash
# Runs a scenario of logons.rs in which all logons of a user share one session.
# Usage: shared.sh SCENARIO.
source "$(dirname "$0")/server.sh"

PER_USER=$'[sessions]\nsession-per = "user"\ncool-down = 0\ncheck-in-use = false'

# list_sessions: prints the open sessions as "SESSION:USER", in one line.
list_sessions() { check_status 'print(*sorted("%s:%s" % (r["session"], r["user"]) for r in s["sessions"]))'; }
# leader_of_alice: prints the process id of the leader of alice's session.
leader_of_alice() { check_status 'print(*[r["leader"] for r in s["sessions"] if r["user"] == "alice"])'; }
# wait_for COMMAND...: waits until the command succeeds.
wait_for() {
  for i in $(seq 600); do "$@" > /dev/null 2>&1 && return; sleep 0.1; done
  fail "timeout: $*: $("$VIPOOL" status)"
}
has_sessions() { [ "$(list_sessions)" = "$1" ]; }
# close_dead_sessions: runs gc twice. gc closes a session when two checks, at least ten seconds
# apart, have found that its leader has exited.
close_dead_sessions() { for i in 1 2; do "$VIPOOL" gc --quiet; [ $i = 2 ] || sleep 11; done; }

# All ssh logons of alice have the same lease. The session stays open until no logon is left, even
# if some logons are killed.
ssh_logons() {
  create_map 10.77.0.100-10.77.0.109 "$PER_USER"
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_loginuid.so" "session required $MODULE preload=$PRELOAD" > /etc/pam.d/sshd
  start_sshd 127.0.0.1
  cat > /run/inside.sh <<'END'
echo "$VIPOOL_LEASE" > /run/inside/$1
# This program belongs to the session, but has no VIPOOL_LEASE in its environment.
env -u VIPOOL_LEASE sleep 600 & program=$!
echo $program > /run/inside/$1.pid
while [ ! -e /run/inside/$1.end ]; do sleep 0.1; done
kill $program
END
  mkdir -m 1777 /run/inside
  logon() { ssh_to 127.0.0.1 $2 sh /run/inside.sh $1 2> /run/err & wait_for test -s /run/inside/$1.pid; }
  logon first alice; local first_leader=$(leader_of_alice)
  logon second alice
  logon third alice
  logon other bob
  assert_equal "$(list_sessions)" "user:2001:alice user:2002:bob"
  for name in second third; do
    assert_equal "$(cat /run/inside/$name)" "$(cat /run/inside/first)"
  done
  [ "$(cat /run/inside/other)" != "$(cat /run/inside/first)" ] || fail "bob has the lease of alice"
  [ "$(count_leased)" = 2 ] || fail "each user has one address: $("$VIPOOL" status)"
  # For a process without VIPOOL_LEASE, vipool finds the session by the user who logged on.
  "$VIPOOL" explain --json "$(cat /run/inside/second.pid)" | python3 -c '
import json, sys
session = json.load(sys.stdin)["session"]
assert (session["session"], session["found_by"]) == ("user:2001", "login-user"), session'
  # Users cannot list the logons.
  assert_equal "$(stat -c %a:%U /run/vipool/logons)" 700:root
  assert_equal "$(ls /run/vipool/logons | wc -l)" 4

  touch /run/inside/first.end
  replaced_leader() { [ "$(leader_of_alice)" != "$first_leader" ]; }
  wait_for replaced_leader
  assert_equal "$(list_sessions)" "user:2001:alice user:2002:bob"
  # The leader is killed. The next gc makes the remaining logon of alice the leader.
  local killed_leader=$(leader_of_alice)
  kill -9 $killed_leader
  replaced_leader() { [ "$(leader_of_alice)" != "$killed_leader" ]; }
  wait_for test ! -e /proc/$killed_leader
  "$VIPOOL" gc --quiet
  replaced_leader || fail "the killed logon is still the leader"
  close_dead_sessions
  assert_equal "$(list_sessions)" "user:2001:alice user:2002:bob"
  assert_equal "$(ls /run/vipool/logons | wc -l)" 2
  # A logoff closes bob's session. If the only remaining logon of alice is killed, gc closes her
  # session.
  touch /run/inside/other.end
  wait_for has_sessions user:2001:alice
  killed_leader=$(leader_of_alice)
  kill -9 $killed_leader
  wait_for test ! -e /proc/$killed_leader
  close_dead_sessions
  assert_equal "$(list_sessions)" ""
  "$VIPOOL" gc --quiet
  assert_equal "$(ls /run/vipool/logons)" ""
  assert_equal "$(check_status 'print(s["session_per"])')" user
  # The next logon opens a new session.
  logon next alice
  [ "$(cat /run/inside/next)" != "$(cat /run/inside/first)" ] || fail "the lease of a closed session"
  touch /run/inside/next.end
  wait_for has_sessions ""
}

# Logons of alice are killed at random moments while another logon of alice is open. The session
# stays open with the same lease.
killed_logons() {
  create_map 10.77.0.100-10.77.0.109 "$PER_USER"
  write_pam_service logon preload=none
  cat > /run/logon.py <<'END'
import ctypes, sys
pam = ctypes.CDLL("libpam.so.0")
CONV = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
class Conv(ctypes.Structure): _fields_ = [("conv", CONV), ("data", ctypes.c_void_p)]
conv = Conv(CONV(lambda *arguments: 19), None)
pam.pam_getenv.restype = ctypes.c_char_p
def start():
    pamh = ctypes.c_void_p()
    pam.pam_start(b"logon", b"alice", ctypes.byref(conv), ctypes.byref(pamh))
    assert pam.pam_open_session(pamh, 0) == 0
    return pamh
def end(pamh):
    pam.pam_close_session(pamh, 0)
    pam.pam_end(pamh, 0)
END
  cat > /run/killed.py <<'END'
import os, random, subprocess, sys, time
sys.path.insert(0, "/run")
import logon
seed = int(os.environ.get("VIPOOL_SEED", random.randrange(1 << 32)))
print("seed", seed); random.seed(seed)
logon_loop = "import logon\nprint('ready', flush=True)\nwhile True: logon.end(logon.start())"
def status():
    import json
    return json.loads(subprocess.check_output([os.environ["VIPOOL"], "status", "--json"]))["sessions"]
for round in range(int(os.environ["ROUNDS"])):
    open_logon = logon.start()
    lease = logon.pam.pam_getenv(open_logon, b"VIPOOL_LEASE")
    children = [subprocess.Popen(["python3", "-c", logon_loop], cwd="/run", stdout=subprocess.PIPE) for _ in range(3)]
    for child in children: child.stdout.readline()
    time.sleep(random.random() * 0.02)
    for child in children: child.kill()
    for child in children: child.wait()
    subprocess.check_call([os.environ["VIPOOL"], "gc", "--quiet"])
    assert [row["session"] for row in status()] == ["user:2001"], status()
    # This process has two logons. The end of the first logon does not close the session.
    second_logon = logon.start()
    assert logon.pam.pam_getenv(second_logon, b"VIPOOL_LEASE") == lease
    logon.end(open_logon)
    assert [row["session"] for row in status()] == ["user:2001"], status()
    logon.end(second_logon)
    # The killed logons do not keep the session open.
    assert status() == [], status()
END
  python3 /run/killed.py
  # If the only logon of the session is killed, gc closes the session.
  python3 -c 'import sys; sys.path.insert(0, "/run"); import logon, os; logon.start(); os.kill(os.getpid(), 9)' || true
  assert_equal "$(list_sessions)" user:2001:alice
  close_dead_sessions
  assert_equal "$(list_sessions)" ""
  "$VIPOOL" down
  [ ! -e /run/vipool/logons ] || fail "down left the directory of the logons"
}

# `when-exhausted` applies to the first logon of a user. The user's later logons share its address.
# `sessions-per-user` and reservations apply to the shared session.
policies() {
  local limits=$'[reservations]\nalice = "10.77.0.101"\n'"$PER_USER"$'\nsessions-per-user = 1\nwhen-exhausted = "refuse"'
  create_map 10.77.0.101 "$limits"
  write_pam_service logon preload=none
  if pamtester logon bob open_session > /run/out 2>&1; then fail "the logon was not refused"; fi
  for i in 1 2; do pamtester logon alice open_session & wait $!; done
  assert_equal "$(list_sessions)" user:2001:alice
  check_status 'assert s["sessions"][0]["virtual_ip"] == ["10.77.0.101"], s'
  # Root joins the session with `vipool run`. The program keeps the session open, like a logon.
  VIPOOL_PRELOAD=$PRELOAD "$VIPOOL" run --session user:2001 --user alice -- sh -c "touch /tmp/ready.$$; while [ ! -e /run/end ]; do sleep 0.1; done" &
  wait_for test -e /tmp/ready.$$; rm /tmp/ready.$$
  close_dead_sessions
  assert_equal "$(list_sessions)" user:2001:alice
  touch /run/end; wait $!
  assert_equal "$(list_sessions)" ""
}

"$1"
