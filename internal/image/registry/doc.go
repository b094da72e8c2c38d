// Package registry fetches images from registries that speak the Docker
// registry protocol v2 (the OCI distribution specification), and pushes them.
//
// It hides where a name is really fetched from (mirrors, other locations), how
// a registry is talked to (TLS or not, which certificates, which credentials,
// tokens), and that connections break: a manifest is asked for again, a blob is
// continued from the byte where it stopped.
//
// The settings are the files that users of Docker and Podman have; of several
// that speak of the same registry, the first wins:
//
//	~/.config/isle/registries.conf, /etc/isle/registries.conf       in the format of the next
//	containers-registries.conf(5): ~/.config/containers or /etc/containers, with registries.conf.d
//	/etc/docker/daemon.json, ~/.config/docker/daemon.json            registry-mirrors, insecure-registries
//	certs.d of /etc/isle, /etc/docker, /etc/containers and the user  CA and client certificates
//	policy.json of ~/.config/isle, /etc/isle, ~/.config/containers, /etc/containers   which images may be pulled, by containers-policy.json(5)
//	$REGISTRY_AUTH_FILE, or ~/.docker/config.json and containers-auth.json(5)
//
// Invariants: plain HTTP is spoken only to registries that the settings or a
// loopback address allow it for, and to the latter only over loopback; a mirror
// is never pushed to; an upload that a registry has another host take goes there
// without credentials; a redirect never leads from HTTPS to HTTP, to another scheme or to a
// link-local address; credentials go to the host they are kept for; what is
// returned as the manifest of a digest has that digest. Blobs are not verified
// here but by the store that they are written to.
//
// The token protocol and the credential files are oras-go's (packages auth and
// credentials); fetching is done here because resuming, one error line for each
// fault, and reading without a second hash are not to be had there.
package registry
