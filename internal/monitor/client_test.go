package monitor

func testClient(args []string) int { return 0 }
