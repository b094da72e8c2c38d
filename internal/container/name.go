package container

import (
	"strconv"
	"time"
)

// Two word lists of 64: the shore, its weather and its creatures.
var (
	nameFirst = [...]string{
		"airy", "amber", "ashen", "balmy", "basalt", "bold", "brackish", "breezy", "brisk", "calm", "chalky", "clear", "coastal", "copper", "coral", "cosy",
		"crisp", "dapper", "deep", "distant", "dusky", "eager", "early", "even", "fair", "fern", "foamy", "free", "gentle", "glad", "golden", "granite",
		"green", "hazy", "hidden", "high", "jolly", "keen", "kind", "late", "lively", "lofty", "lone", "low", "lucid", "lunar", "mellow", "merry",
		"misty", "mossy", "nimble", "noble", "northern", "pale", "plucky", "quiet", "rapid", "rocky", "rosy", "sandy", "serene", "silver", "steady", "windy",
	}
	nameSecond = [...]string{
		"albatross", "anchor", "atoll", "auk", "bay", "beacon", "bight", "breaker", "buoy", "cape", "cay", "cliff", "clipper", "cod", "compass", "cormorant",
		"cove", "crab", "current", "delta", "dory", "dune", "eddy", "eider", "fjord", "gannet", "gull", "harbour", "heron", "holm", "inlet", "islet",
		"jetty", "kelp", "kittiwake", "lagoon", "lantern", "limpet", "loch", "lugger", "mast", "mussel", "narwhal", "oyster", "pebble", "pelican", "petrel", "pier",
		"plover", "porpoise", "puffin", "quay", "reef", "rudder", "schooner", "seal", "shoal", "skerry", "skiff", "sloop", "sound", "spit", "tern", "tide",
	}
)

// RandomName returns a name for a container that was given none: two words, and
// a number from the third try on. It needs no secrecy, only spread, and the
// caller tries again when the name is taken; the clock's low bits are enough.
func RandomName(try int) string {
	// Mixing as in splitmix64, so that calls a few nanoseconds apart differ in all bits.
	x := uint64(time.Now().UnixNano()) + uint64(try)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	name := nameFirst[x%uint64(len(nameFirst))] + "_" + nameSecond[x>>32%uint64(len(nameSecond))]
	if try >= 2 {
		name += strconv.FormatUint(x>>48%(10<<(3*min(try, 5))), 10)
	}
	return name
}
