// Package page prints what package view saw: as text in two columns, inside and on
// the host, with the plain command that shows the same beside each fact; and as
// one self-contained HTML page with the picture.
//
// It hides how a fact is put into words. Both forms are made from the same
// [Section] list, so that they say the same.
//
// Everything that a container or an image could have chosen is escaped where it is
// written: control characters in text, markup in HTML. The HTML page has no script
// and loads nothing.
package page
