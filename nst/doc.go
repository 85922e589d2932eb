// Package nst is neural style transfer: it changes a picture until a convolutional
// network sees in it what it sees in a content picture, with the textures that it sees
// in style pictures (Gatys, Ecker and Bethge, arXiv:1508.06576).
//
// An Engine holds devices and a network; Stylize makes a picture. nst/README.md says how
// it works, and where in the code.
package nst
