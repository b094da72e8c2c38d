// Package conformance compares isle's OCI runtime with runc: the same bundles are
// run by both, and everything that can be observed of them is compared.
//
// The bundles are variations of one, made from tables: namespaces, capabilities,
// limits, mounts, users, resources, filters, hooks, and what is wrong with them.
// In each container a script prints what the kernel says of it: credentials,
// limits, mounts, cgroups, devices, files. Outside, exit codes, messages, states,
// cgroup files, the order of hooks and what they are told are looked at.
//
// What is known to differ is in the table of differences, each with its reason; a
// difference that is gone fails too, so that the table stays true.
//
// suites.sh runs the suites of other projects against isle. What was seen is in
// docs/oci-conformance.md.
package conformance
