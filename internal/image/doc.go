// Package image keeps images: names as Docker reads them, a content-addressed
// store in the OCI image layout that verifies on write and on read, and
// archives. Subpackage registry, which needs an HTTP client, is linked by isled
// only.
package image
