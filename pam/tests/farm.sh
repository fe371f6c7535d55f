#!/bin/bash
# The scenarios of logons.rs with a farm. Usage: farm.sh NAME. Two servers of one farm, a client
# host and a third host are network namespaces on one bridge.
source "$(dirname "$0")/machine.sh"

ip link add br0 type bridge
ip link set br0 up
# add_host NAME NUMBER: adds a host with the addresses 10.77.0.NUMBER and fd77::NUMBER.
add_host() {
  ip netns add $1
  ip link add port-$1 type veth peer name eth0 netns $1
  ip link set port-$1 master br0 up
  ip -n $1 link set lo up
  ip -n $1 link set eth0 up
  ip -n $1 address add 10.77.0.$2/16 dev eth0
  ip -n $1 address add fd77::$2/64 dev eth0 nodad
  ip -n $1 route add default via 10.77.0.50 2> /dev/null || true
}
add_host ts1 1
add_host ts2 2
add_host client 50
add_host third 60

cat > /run/farm.toml <<END
[server.ts1]
[server.ts2]
[[range]]
server = "ts1"
addresses = ["10.77.1.0-10.77.1.255", "fd77::1:0-fd77::1:f"]
[[range]]
server = "ts2"
addresses = ["10.77.2.0-10.77.2.255"]
[[program]]
path = "$(readlink -f /usr/bin/nc)"
features = ["virtual-ip"]
[rewrite]
fixed-ports = [4711]
[network]
subnets = ["10.77.0.0/16", "fd77::/64"]
END

# in_host NAME COMMAND...: runs a command in the network namespace of a host.
in_host() { ip netns exec "$@"; }
vipool_up() { in_host $1 "$VIPOOL" up --server $1 --farm /run/farm.toml --map /run/$1 "${@:2}"; }
vipool_down() { in_host $1 "$VIPOOL" down --map /run/$1 "${@:2}"; }
check_status() { in_host $1 "$VIPOOL" status --map /run/$1 --json | python3 -c "import json,sys; s=json.load(sys.stdin); $2"; }
# count_assigned_addresses SERVER: prints the number of pool addresses on the interface of a server.
count_assigned_addresses() { ip -n $1 -o address show dev eth0 | grep -cE 'inet 10\.77\.[12]\..* scope host|inet6 fd77::1:' || true; }
source_to() { ip -n $1 route get $2 | grep -o 'src [^ ]*'; }
reserved_ports() { in_host $1 cat /proc/sys/net/ipv4/ip_local_reserved_ports; }

# Two servers use one farm.toml. Each server assigns its own addresses, except one address that the
# third host already uses. Other hosts can reach the assigned addresses. The default source
# addresses of the servers do not change.
two_servers() {
  ip -n third address add 10.77.1.30/32 dev eth0
  # ts1 has two interfaces on the network. On both, Linux answers ARP requests for every address of
  # ts1. `up` must not take these answers for another host.
  ip link add port-ts1b type veth peer name eth1 netns ts1
  ip link set port-ts1b master br0 up
  ip -n ts1 link set eth1 up
  local sources_before="$(source_to ts1 10.77.0.50) $(source_to ts1 192.0.2.1) $(source_to ts1 fd77::50)"
  in_host ts1 sh -c 'echo 80 > /proc/sys/net/ipv4/ip_local_reserved_ports'
  vipool_up ts1 2> /run/err & local first_pid=$!
  vipool_up ts2
  wait $first_pid
  grep 'cannot lease 10.77.1.30: .* uses the address on the network' /run/err || fail "$(cat /run/err)"
  assert_equal "$(count_assigned_addresses ts1)" $((255 + 16))
  assert_equal "$(count_assigned_addresses ts2)" 256
  assert_equal "$(reserved_ports ts1)" 80,4711
  assert_equal "$(source_to ts1 10.77.0.50) $(source_to ts1 192.0.2.1) $(source_to ts1 fd77::50)" "$sources_before"
  check_status ts1 'assert s["pools"][0]["addresses"] == 255, s'
  # The client connects to an address of ts1, which needs ARP or neighbour discovery. Then ts1
  # connects to the client from this address.
  for address in 10.77.1.0 10.77.1.255 fd77::1:3; do
    in_host ts1 timeout 20 nc -nl $address 7000 > /run/output & local listener=$!
    for i in $(seq 50); do in_host client nc -nN $address 7000 <<< hello && break; sleep 0.1; done
    wait $listener
    assert_equal "$(cat /run/output)" hello
    in_host client timeout 20 nc -nlv $([[ $address = *:* ]] && echo fd77::50 || echo 10.77.0.50) 7001 > /run/output 2>&1 & listener=$!
    for i in $(seq 50); do in_host ts1 nc -nN -s $address $([[ $address = *:* ]] && echo fd77::50 || echo 10.77.0.50) 7001 <<< x && break; sleep 0.1; done
    wait $listener
    grep -qF "$address" /run/output || fail "client saw $(cat /run/output)"
  done
  # The third host gives up the address, and the next `up` assigns it.
  ip -n third address del 10.77.1.30/32 dev eth0
  vipool_up ts1
  assert_equal "$(count_assigned_addresses ts1)" $((256 + 16))
  # `down` leaves the addresses of an open session assigned. No new session can open.
  in_host ts1 "$VIPOOL" session open 7 --user alice --map /run/ts1
  vipool_down ts1
  assert_equal "$(count_assigned_addresses ts1)" 2
  if in_host ts1 "$VIPOOL" session open 8 --user bob --map /run/ts1; then fail "a session was opened during a drain"; fi
  in_host ts1 "$VIPOOL" session close 7 --map /run/ts1
  vipool_down ts1
  vipool_down ts2
  assert_equal "$(count_assigned_addresses ts1)" 0
  assert_equal "$(count_assigned_addresses ts2)" 0
  assert_equal "$(reserved_ports ts1)" 80
}

# Each `up` or `down` completes or undoes a previous run that was killed at a random moment.
killed_up_and_down() {
  in_host ts1 sh -c 'echo 80 > /proc/sys/net/ipv4/ip_local_reserved_ports'
  echo "seed ${VIPOOL_SEED:=$RANDOM}"
  RANDOM=$VIPOOL_SEED
  for round in $(seq $ROUNDS); do
    case $((RANDOM % 3)) in
      0) command="up ts1 --no-probe" ;;
      1) command="down ts1" ;;
      2) command="down ts1 --force" ;;
    esac
    # Adding addresses takes a few milliseconds, so most limits are below 60 ms. IPv6 duplicate
    # address detection takes about two seconds, so some limits are up to three seconds.
    limit_ms=$((RANDOM % 4 ? RANDOM % 60 : RANDOM % 3000))
    words=(${command/ ts1/} --map /run/ts1)
    [ ${words[0]} = down ] || words+=(--server ts1 --farm /run/farm.toml)
    in_host ts1 timeout -s KILL $((limit_ms / 1000)).$(printf %03d $((limit_ms % 1000))) "$VIPOOL" ${words[@]} \
      > /dev/null 2>&1 || true
    case $((RANDOM % 4)) in
      0) vipool_down ts1 --force > /dev/null
        assert_equal "$(count_assigned_addresses ts1)" 0
        assert_equal "$(reserved_ports ts1)" 80 ;;
      1) vipool_up ts1 --no-probe > /dev/null
        assert_equal "$(count_assigned_addresses ts1)" $((256 + 16))
        assert_equal "$(reserved_ports ts1)" 80,4711
        check_status ts1 'assert s["pools"][0]["free"] == 256, s' ;;
    esac
  done
  vipool_down ts1 --force
  assert_equal "$(count_assigned_addresses ts1)" 0
  assert_equal "$(reserved_ports ts1)" 80
}

# Logons and logoffs are killed at random moments. No address is lost or leased to two sessions, and
# `gc` releases the addresses of killed logons.
killed_logons() {
  write_pam_service logon map=/run/ts1 preload=none
  vipool_up ts1 --no-probe
  in_host ts1 python3 - $ROUNDS <<'END'
import ctypes, os, random, signal, subprocess, sys, time
seed = int(os.environ.get("VIPOOL_SEED", random.randrange(1 << 32)))
print("seed", seed); random.seed(seed)
body = '''
import ctypes, os
pam = ctypes.CDLL("libpam.so.0")
CONV = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
class Conv(ctypes.Structure): _fields_ = [("conv", CONV), ("data", ctypes.c_void_p)]
conv = Conv(CONV(lambda *arguments: 19), None)
print("ready", flush=True)
while True:
    pamh = ctypes.c_void_p()
    pam.pam_start(b"logon", b"alice", ctypes.byref(conv), ctypes.byref(pamh))
    pam.pam_putenv(pamh, b"XDG_SESSION_ID=%d" % os.getpid())
    pam.pam_set_item(pamh, 4, b"192.0.2.7")
    pam.pam_open_session(pamh, 0)
    pam.pam_close_session(pamh, 0)
    pam.pam_end(pamh, 0)
'''
for i in range(int(sys.argv[1])):
    children = [subprocess.Popen(["python3", "-c", body], stdout=subprocess.PIPE) for _ in range(3)]
    for child in children: child.stdout.readline()
    time.sleep(random.random() * 0.02)
    for child in children: child.kill()
    for child in children: child.wait()
END
  check_status ts1 '
leased = [a for r in s["sessions"] for a in r["virtual_ip"]]
assert len(leased) == len(set(leased)), leased
for p in s["pools"]:
    assert p["used"] + p["free"] + p["cooling"] + p["lingering"] == p["addresses"], p
used = sum(p["used"] for p in s["pools"] if p["kind"] == "virtual-ip")
assert used == len(leased), (used, leased)
print(len(leased), "addresses are leased to killed logons")'
  # gc closes the sessions of the killed logons. Session 7 has no leader and stays open.
  in_host ts1 "$VIPOOL" session open 7 --user bob --map /run/ts1
  for i in 1 2; do in_host ts1 "$VIPOOL" gc --map /run/ts1; sleep 11; done
  # A logon that is killed between the creation of its client file and the write leaves an empty
  # file. gc removes such a file a minute after it was created.
  find /run/ts1 -name 'client.*' -empty -exec touch -d '2 minutes ago' {} +
  in_host ts1 "$VIPOOL" gc --map /run/ts1
  check_status ts1 'assert [r["session"] for r in s["sessions"]] == ["7"], s["sessions"]'
  assert_equal "$(find /run/ts1 -name 'client.*')" ""
}

# Runs many concurrent ssh logons. The client host sees a different address for each logon.
concurrent_ssh_logons() {
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_loginuid.so" "session required $MODULE preload=$PRELOAD map=/run/ts1" \
    > /etc/pam.d/sshd
  vipool_up ts1 --no-probe
  start_sshd 10.77.0.1 ts1
  # The collector, a program on the client host, records the source of each connection. It keeps
  # every connection open until the file /run/enough exists.
  in_host client timeout 300 python3 - $LOGONS > /run/seen <<'END' &
import socket, sys
server = socket.create_server(("10.77.0.50", 9000), backlog=1000)
print("ready", flush=True)
connections = [server.accept() for _ in range(int(sys.argv[1]))]
for _, (address, _port) in connections: print(address, flush=True)
sys.stdin = open("/dev/null")
import os, time
while not os.path.exists("/run/enough"): time.sleep(0.1)
END
  local collector=$!
  until grep -qs ready /run/seen; do sleep 0.1; done
  local clients=()
  for i in $(seq $LOGONS); do
    in_host client timeout 300 bash -c "$(declare -f ssh_to); ssh_to 10.77.0.1 $( ((i % 2)) && echo alice || echo bob ) nc 10.77.0.50 9000" < /dev/null &
    clients+=($!)
    # Start at most 20 logons per second, because each logon needs a key exchange and the machine
    # may have only two processors.
    ((i % 20)) || sleep 1
  done
  for i in $(seq 2400); do [ "$(grep -c '^10' /run/seen)" = $LOGONS ] && break; sleep 0.1; done
  assert_equal "$(grep '^10\.77\.1\.' /run/seen | sort -u | wc -l)" $LOGONS
  check_status ts1 "
seen = {l.strip() for l in open('/run/seen') if l.startswith('10.')}
leased = {r['virtual_ip'][0] for r in s['sessions']}
assert seen == leased, (seen ^ leased)
assert {r['client'] for r in s['sessions']} == {'10.77.0.50'}"
  touch /run/enough
  wait $collector
  for client in ${clients[@]}; do wait $client || true; done
  for i in $(seq 100); do check_status ts1 'sys.exit(len(s["sessions"]) > 0)' && break; sleep 0.1; done
  check_status ts1 'assert s["sessions"] == [], s["sessions"]'
}

"$1"
