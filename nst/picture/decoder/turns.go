package decoder

import (
	"context"
	"slices"
	"sync"
)

// turns has some go on at once and others wait, one client after the other: one that asks
// often waits for itself, and not others for it.
type turns struct {
	most, ofOne int

	mutex   sync.Mutex
	going   int
	of      map[string]int // of them, of each client
	clients []string       // who wait, whose turn it is next first
	waiting map[string][]chan struct{}
}

func newTurns(most int) *turns {
	return &turns{most: most, ofOne: max(1, most/2), of: map[string]int{}, waiting: map[string][]chan struct{}{}}
}

// wait returns when it is a client's turn; leave is to be called when that is over. The error
// is ctx's. A client without a name is the program itself, which may take all turns.
func (t *turns) wait(ctx context.Context, client string) (leave func(), err error) {
	t.mutex.Lock()
	mine := make(chan struct{})
	if len(t.waiting[client]) == 0 {
		t.clients = append(t.clients, client)
	}
	t.waiting[client] = append(t.waiting[client], mine)
	t.next()
	t.mutex.Unlock()
	leave = sync.OnceFunc(func() {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		t.going--
		if t.of[client]--; t.of[client] == 0 {
			delete(t.of, client)
		}
		t.next()
	})
	select {
	case <-mine:
		return leave, nil
	case <-ctx.Done():
	}
	t.mutex.Lock()
	at := slices.Index(t.waiting[client], mine)
	if at >= 0 {
		t.drop(client, at)
	}
	t.mutex.Unlock()
	if at < 0 { // it has become its turn
		leave()
	}
	return nil, context.Cause(ctx)
}

// next gives turns to those who wait, while there are some.
func (t *turns) next() {
	for i := 0; i < len(t.clients) && t.going < t.most; {
		client := t.clients[i]
		if client != "" && t.of[client] >= t.ofOne {
			i++
			continue
		}
		t.going++
		t.of[client]++
		close(t.waiting[client][0])
		t.clients = append(t.clients, client) // behind the others, if it still waits
		t.clients = slices.Delete(t.clients, i, i+1)
		if t.waiting[client] = t.waiting[client][1:]; len(t.waiting[client]) == 0 {
			t.forget(client)
		}
	}
}

// drop forgets one who waits.
func (t *turns) drop(client string, at int) {
	if t.waiting[client] = slices.Delete(t.waiting[client], at, at+1); len(t.waiting[client]) == 0 {
		t.forget(client)
	}
}

func (t *turns) forget(client string) {
	delete(t.waiting, client)
	t.clients = slices.DeleteFunc(t.clients, func(c string) bool { return c == client })
}
