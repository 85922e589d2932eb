package torch

// #include "csrc/nsttorch.h"
import "C"

import "runtime"

// Graph is a recording of work that a device was sent, which can be sent again as
// one (a CUDA graph). What the work reads and writes must keep its place in
// memory. Close it before the tensors that it uses.
type Graph struct {
	handle  C.nst_graph
	cleanup runtime.Cleanup
}

// Record records what f sends to the device, without doing it. It fails where
// the device has no graphs, or f does what cannot be recorded, such as reading a
// value back; then nothing was done, and f may have ended anywhere. The tensors
// that f makes are the graph's memory: those that it keeps have values after
// Replay.
func Record(device Device, f func()) (*Graph, error) {
	runtime.LockOSThread() // which records
	defer runtime.UnlockOSThread()
	name, free := cString(string(device))
	defer free()
	var h C.nst_graph
	if err := failure("record", C.nst_graph_begin(name, &h)); err != nil {
		return nil, err
	}
	recorded := false
	defer func() {
		if !recorded { // whatever f did, the device goes on as before
			C.nst_graph_free(h)
		}
	}()
	err := func() (err error) {
		defer func() {
			if endErr := failure("record", C.nst_graph_end(h)); err == nil {
				err = endErr
			}
		}()
		return Scoped(func() error { f(); return nil })
	}()
	if err != nil {
		return nil, err
	}
	recorded = true
	g := &Graph{handle: h}
	g.cleanup = runtime.AddCleanup(g, func(h C.nst_graph) { C.nst_graph_free(h) }, h)
	return g, nil
}

// Replay does what was recorded. It is numeric code, and does not wait.
func (g *Graph) Replay() {
	must("replay", C.nst_graph_replay(g.handle))
	runtime.KeepAlive(g)
}

// Close frees the recording and its memory. Closing it again does nothing.
func (g *Graph) Close() {
	if g != nil && g.handle != nil {
		g.cleanup.Stop()
		C.nst_graph_free(g.handle)
		g.handle = nil
	}
}
