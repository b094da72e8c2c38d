package monitor

func (m *monitor) noteOOM() {}
