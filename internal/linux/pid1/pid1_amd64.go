package pid1

import _ "embed"

//go:embed pid1_amd64
var program string
