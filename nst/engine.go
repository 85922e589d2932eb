package nst

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Engine is devices with a feature network on each. It is safe for concurrent use;
// transfers of one engine run one after the other. It remembers the style targets of the
// last pictures. The owner closes it.
type Engine struct {
	workers   []*tiling.Worker // everything but the work on single tiles runs on the first one's thread
	styles    *styleCache
	networkID func() (string, error)
}

// OpenOptions are where and how an engine computes. The zero value is the default.
type OpenOptions struct {
	// Device is "auto" (which is the default), "cpu", "cuda", "cuda:N" (see
	// torch.ParseDevice), or several with commas between, which share a picture's tiles.
	// "cpu:N" is N workers on the CPU, each with its share of the cores while there are
	// tiles to share; a picture that is evaluated whole has them all.
	Device string
	// LowPriority has the engine compute with what processor time others leave, as in a
	// process that has something to answer too.
	LowPriority bool
}

// Open readies devices and loads a feature network, a TorchScript file (see vgg19.Load),
// onto each. Errors match torch.ErrDevice, torch.ErrDeviceLost, vgg19.ErrNetwork,
// torch.ErrOutOfMemory, or are those of opening the file.
//
// Several engines in one process compute beside each other, each on threads of its own,
// and know nothing of each other: engines on one device share its memory, and on the CPU
// its cores. What one of them plans for the memory does not count what another takes
// later. Options.MemoryLimit on the CPU counts the tensors of the whole process,
// Result.PeakMemory is the device's, begun anew by each run, and on CUDA engines of
// different precisions take turns in sending work.
func Open(ctx context.Context, model string, o OpenOptions) (*Engine, error) {
	return open(ctx, model, o.devices(), o.LowPriority)
}

// devices are the names of Device.
func (o OpenOptions) devices() []string {
	if o.Device == "" {
		return []string{"auto"}
	}
	return strings.Split(o.Device, ",")
}

// open opens one engine on all the devices.
func open(ctx context.Context, model string, devices []string, lowPriority bool) (e *Engine, err error) {
	e = &Engine{styles: newStyleCache()}
	e.networkID = sync.OnceValues(func() (string, error) { return vgg19.FileHash(model) })
	defer func() {
		if err != nil {
			e.Close()
			e = nil
		}
	}()
	for _, name := range devices {
		if err := e.addWorkers(name, lowPriority); err != nil {
			return e, err
		}
	}
	for i, w := range e.workers {
		if i > 0 && w.Device() == e.workers[i-1].Device() { // they can share it on the CPU
			w.Network = e.workers[i-1].Network
			continue
		}
		err := w.Thread.Do(ctx, func() error {
			return torch.Retry(w.Device(), func() (err error) {
				// What the libraries take of the device is taken before a plan is made of what is free.
				torch.SYRK(torch.Full(1, w.Device(), 1, 1, 1), 1)
				w.Network, err = vgg19.Load(model, w.Device())
				return err
			})
		})
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

// OpenEach is Open for several devices that do not share pictures: an engine, with a network of
// its own, for each that o.Device names. ("cpu:N" is one.)
func OpenEach(ctx context.Context, model string, o OpenOptions) (all []*Engine, err error) {
	defer func() {
		if err != nil {
			for _, e := range all {
				e.Close()
			}
			all = nil
		}
	}()
	for _, name := range o.devices() {
		e, err := open(ctx, model, []string{name}, o.LowPriority)
		if err != nil {
			return all, err
		}
		d := e.Device()
		twice := d != torch.CPU && slices.ContainsFunc(all, func(other *Engine) bool { return other.Device() == d })
		if all = append(all, e); twice {
			return all, fmt.Errorf("%w: %s is named twice", torch.ErrDevice, d)
		}
	}
	return all, nil
}

// addWorkers adds the workers of a device's name: one, or for "cpu:N" several.
func (e *Engine) addWorkers(name string, lowPriority bool) (err error) {
	count, threads := 1, 0
	if n, ok := strings.CutPrefix(name, "cpu:"); ok {
		most := torch.Threads()
		if count, err = strconv.Atoi(n); err != nil || count < 1 || count > most {
			return fmt.Errorf("%w: %q: 1 to %d workers can share this CPU", torch.ErrDevice, name, most)
		}
		name, threads = "cpu", max(1, most/count)
	}
	d, err := torch.ParseDevice(name)
	if err != nil {
		return err
	}
	if d != torch.CPU && slices.Contains(e.Devices(), d) {
		return fmt.Errorf("%w: %s is named twice", torch.ErrDevice, d)
	}
	for range count {
		w := &tiling.Worker{Thread: torch.StartThread(d), Threads: threads}
		e.workers = append(e.workers, w)
		if lowPriority {
			if err := w.Thread.LowerPriority(); err != nil {
				return err
			}
		}
	}
	return nil
}

// thread is the first device's.
func (e *Engine) thread() *torch.Thread { return e.workers[0].Thread }

// Device is where the engine works: the first of several devices.
func (e *Engine) Device() torch.Device { return e.thread().Device() }

// Devices are all of them.
func (e *Engine) Devices() (all []torch.Device) {
	for _, w := range e.workers {
		all = append(all, w.Device())
	}
	return all
}

// onAll does work on every worker's thread, one after the other.
func (e *Engine) onAll(ctx context.Context, work func(*tiling.Worker) error) error {
	for _, w := range e.workers {
		if err := w.Thread.Do(ctx, func() error { return work(w) }); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the network and ends the devices' threads. No transfer may be
// running.
func (e *Engine) Close() {
	for i, w := range e.workers {
		_ = w.Thread.Do(context.Background(), func() error {
			if i == 0 {
				e.styles.close()
			}
			if w.Network != nil {
				w.Network.Close()
			}
			return nil
		})
		w.Thread.Close()
	}
}

// Do does work on the engine's thread, between transfers: what uses package torch on the CPU
// so has the engine's cores and priority.
func (e *Engine) Do(ctx context.Context, work func() error) error { return e.thread().Do(ctx, work) }

// Describe returns what the network's file says of itself.
func (e *Engine) Describe(ctx context.Context) (d *vgg19.Description, err error) {
	err = e.thread().Do(ctx, func() error {
		d, err = e.workers[0].Network.Describe(e.Device())
		return err
	})
	return d, err
}

// Threads is the number of threads with which the engine computes on the CPU.
func (e *Engine) Threads() (n int) {
	_ = e.thread().Do(context.Background(), func() error { n = torch.Threads(); return nil })
	return n
}
