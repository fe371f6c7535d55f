# The common setup of the scenarios with one server: a network interface, and functions that create
# and read the map of the server.
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"

# create_map RANGE [TOML]: writes a farm.toml with this range and creates its map.
create_map() {
  printf '[[range]]\naddresses = "%s"\n%s\n' "$1" "${2-}" > /run/farm.toml
  "$VIPOOL" up --farm /run/farm.toml --no-probe > /run/up.log
}

# check_status CODE: runs Python code on the JSON status `s`.
check_status() { "$VIPOOL" status --json | python3 -c "import json,sys; s=json.load(sys.stdin); $1"; }
# count_leased: prints the number of leased virtual IPs.
count_leased() { check_status 'print(sum(p["used"] for p in s["pools"] if p["kind"] == "virtual-ip"))'; }

ip link set lo up
ip link add v0 type veth peer name v1
ip link set v1 up; ip link set v0 up
ip address add 10.77.0.1/24 dev v0
