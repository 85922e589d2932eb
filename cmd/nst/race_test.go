//go:build race

package main

// raced is how many times as much memory a program under the race detector may take.
const raced = 5
