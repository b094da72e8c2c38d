package attacks

import "slices"

// all lists the attacks, by the file they are in.
func all() []attack {
	return slices.Concat(descriptorAttacks(), pathAttacks(), layerAttacks(), copyAttacks(), credentialAttacks(), kernelAttacks(), hostAttacks())
}
