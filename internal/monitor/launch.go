package monitor

func (m *monitor) begin(first *peer) ([]string, error)                  { return nil, nil }
func (m *monitor) launch(first *peer, size [2]uint16) ([]string, error) { return nil, nil }
func (m *monitor) shrink()                                              {}

const shrinkAfter = 0
