package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/seed9bb5c928/nst/nst/jobs"
)

// heartbeat keeps connections of slow jobs from being taken for dead.
const heartbeat = 15 * time.Second

// events is GET /v1/jobs/{id}/events: Server-Sent Events, of which each has the
// whole job and its revision as id. So one that was missed is no loss, and a client
// that comes back with Last-Event-ID gets what is newer. When the job is finished
// the stream ends; who comes back then gets 204, which tells browsers to stop.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	j, err := a.find(r)
	if err != nil {
		return err
	}
	last, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	if j.State.Finished() && last >= j.Revision {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return nil
	}
	leave, err := a.streams.enter(a.group(r))
	if err != nil {
		return problem{Status: 429, Title: "Too many streams",
			Detail: "too many clients follow jobs; try again, or ask for the job now and then", retry: 5 * time.Second}
	}
	defer leave()
	a.ended.Add(1)
	defer a.ended.Done()
	changes, stop := a.queue.Changes(id)
	defer stop()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	s := &stream{w: w, control: http.NewResponseController(w)}
	_ = s.control.SetReadDeadline(time.Time{})
	s.send("retry: 1000\n\n")
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var state jobs.State
	for s.err == nil {
		j, err := a.queue.Get(r.Context(), id)
		if errors.Is(err, jobs.ErrNotFound) {
			s.send("event: deleted\ndata: {}\n\n")
			return nil
		}
		if err == nil && j.Revision > last {
			last = j.Revision
			kind := "progress"
			if j.State != state {
				kind, state = "state", j.State
			}
			data, _ := json.Marshal(viewOf(j))
			s.send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", j.Revision, kind, data))
		}
		if err == nil && j.State.Finished() {
			return nil
		}
		select {
		case <-changes:
		case <-beat.C:
			if g, err := a.guests.check(r); errors.Is(err, errToken) || err == nil && !g.sees(j) {
				return nil // whose token was taken away meanwhile
			}
			s.send(": still here\n\n")
		case <-r.Context().Done():
			return nil
		case <-a.ctx.Done():
			return nil
		}
	}
	return nil
}

// stream writes to a client that has some time for each part.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

func (s *stream) send(text string) {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, s.err = s.w.Write([]byte(text)); s.err == nil {
		s.err = s.control.Flush()
	}
}
