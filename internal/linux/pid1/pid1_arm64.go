package pid1

import _ "embed"

//go:embed pid1_arm64
var program string
