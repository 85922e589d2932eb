// Package bench measures style transfer on a machine so that the figures can be trusted and
// compared: it warms up until the times stand still, keeps every repetition, notes what the
// machine did meanwhile, and says when its figures are noisy.
//
// A Runner measures Workloads; what it finds is a Report, whose JSON has a schema
// (schema.json). Compare holds two reports against each other, and WritePage makes a page of
// many.
package bench
