package torch

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// PanicError is a panic that Recovered made an error of.
type PanicError struct {
	// Value is what was panicked with.
	Value any
	// Stack is the stack of the goroutine that panicked, at that moment.
	Stack string
}

// Error says what was panicked with, without the stack.
func (p *PanicError) Error() string { return fmt.Sprintf("an error in the program: %v", p.Value) }

// Recovered returns f's error, the *Error that numeric code raised, or f's panic as a
// *PanicError: also one that happened on a Thread.
func Recovered(f func() error) (err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if raised, ok := r.(*Error); ok {
			err = raised
			return
		}
		p := &PanicError{Value: r, Stack: string(debug.Stack())}
		var thrown *ThreadPanic
		if e, ok := r.(error); ok && errors.As(e, &thrown) {
			p.Value, p.Stack = thrown.Value, string(thrown.Stack)
		}
		err = p
	}()
	return f()
}
