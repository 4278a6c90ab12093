# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # bench.sh, stage.sh and measure.sh share these variables with each other
# The bare wire: what the machine does without any tunnel.

veth_version() { uname -r; }
veth_prepare() { :; }
veth_up() { far=${outer[b]}; }
veth_settle() { :; }
