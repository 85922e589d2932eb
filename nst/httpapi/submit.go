package httpapi

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

const (
	maxOptions = 64 << 10 // bytes of JSON
	maxParts   = 40
	maxKey     = 200 // bytes of an Idempotency-Key
	uploadWait = 10 * time.Second
)

func bad(format string, args ...any) error {
	return problem{Status: 400, Title: "Bad request", Detail: fmt.Sprintf(format, args...)}
}

// submit is POST /v1/jobs.
func (a *API) submit(w http.ResponseWriter, r *http.Request) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return problem{Status: 415, Title: "Unsupported media type",
			Detail: "a job is sent as multipart/form-data, with the parts content or clip, style and options"}
	}
	key := r.Header.Get("Idempotency-Key")
	if len(key) > maxKey {
		return bad("the Idempotency-Key has %d bytes; %d will do", len(key), maxKey)
	}
	if most := a.config.MaxBytes + a.config.MaxClipBytes; r.ContentLength > most {
		return &http.MaxBytesError{Limit: most}
	}
	if key == "" && a.queue.Full() {
		return jobs.ErrQueueFull
	}
	sent, err := a.receive(w, r)
	if err != nil {
		return err
	}
	defer sent.close()
	turn, cancel := context.WithTimeout(r.Context(), uploadWait)
	defer cancel()
	leave, err := a.uploads.wait(turn, a.group(r))
	if err != nil {
		return cmp.Or(r.Context().Err(), err) // who has gone is not told to come again
	}
	defer leave()
	g, err := a.guests.check(r) // again: that the pictures came may have taken long
	if err != nil {
		return err
	}
	request, err := sent.request()
	if err != nil {
		return err
	}
	request.Key, request.Owner, request.Client = key, g.owner, cmp.Or(g.owner.Name, a.group(r))
	request.ID, _ = r.Context().Value(requestKey{}).(string)
	j, created, err := a.queue.Submit(r.Context(), request)
	if err != nil {
		return err
	}
	if s := noted(w); s != nil {
		s.job = j.ID
	}
	w.Header().Set("Location", "/v1/jobs/"+j.ID)
	status := http.StatusOK // it was there
	if created {
		status = http.StatusCreated
	}
	writeJSON(w, status, viewOf(j))
	return nil
}

// sent is a request that has arrived. What it says of its parts' names and types does not
// count.
type sent struct {
	parts []part
	file  *os.File      // of all parts but the clip, one after the other
	clip  *jobs.Scratch // nil: there is none
	leave func()        // the clip's share
	bytes int64         // in the file
}

// part is one of a request's.
type part struct {
	name     string
	at, size int64
}

// clipPart is the part, and the file, that a clip is.
const clipPart = "clip"

func (s *sent) close() {
	s.file.Close()
	if s.clip != nil {
		s.clip.Remove()
		s.leave()
	}
}

// take takes what comes of a request's parts.
func (s *sent) take(a *API, client string, parts *multipart.Reader) error {
	seen := map[string]int{}
	for n := 0; ; n++ {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return formError(err)
		}
		if n == maxParts {
			return bad("there are more than %d parts", maxParts)
		}
		name := p.FormName()
		if seen[name]++; seen[name] > 1 && name != "style" && name != "style_mask" {
			return bad("the part %q is there twice", name)
		}
		switch name {
		case clipPart:
			err = s.takeClip(a, client, p)
		case "content", "style", "options", "init", "content_mask", "style_mask", "strength_mask":
			err = s.takePart(name, p, a.config.MaxBytes)
		default:
			err = bad("the part %.40q is unknown: content, clip, style, options, init, content_mask, style_mask and "+
				"strength_mask are known", name)
		}
		if err != nil {
			return err
		}
	}
	if seen["content"] > 0 && seen[clipPart] > 0 {
		return bad("there are the parts content and clip; one of them will do")
	}
	if seen[clipPart] > 0 {
		seen["content"]++
	}
	for _, name := range []string{"content", "style"} {
		if seen[name] == 0 {
			return problem{Status: 422, Title: "Missing part", Detail: "the part " + name +
				" is missing: a picture", Part: name}
		}
	}
	return nil
}

// takePart takes one part; all may have so many bytes together.
func (s *sent) takePart(name string, from io.Reader, most int64) error {
	if name == "options" {
		from = io.LimitReader(from, maxOptions+1)
	}
	n, err := taken(s.file, from, most-s.bytes)
	if err != nil {
		return err
	}
	if n > most-s.bytes {
		return &http.MaxBytesError{Limit: most}
	}
	s.parts = append(s.parts, part{name, s.bytes, n})
	s.bytes += n
	if name == "options" && n > maxOptions {
		return problem{Status: 413, Title: "Too large", Detail: fmt.Sprintf("the options may have %d bytes",
			maxOptions), Field: "options"}
	}
	return nil
}

// takeClip takes the clip into a file that has a name.
func (s *sent) takeClip(a *API, client string, from io.Reader) (err error) {
	if !jobs.TakesClips() {
		return jobs.ErrNoClips
	}
	if s.leave, err = a.clips.enter(client); err != nil {
		return err
	}
	if s.clip, err = jobs.NewScratch(); err != nil {
		s.leave()
		return err
	}
	most := a.config.MaxClipBytes
	f, err := os.Create(s.clip.Path(clipPart))
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := taken(f, from, most)
	if err == nil && n > most {
		err = problem{Status: 413, Title: "Too large", Detail: fmt.Sprintf("a clip may have %d bytes", most),
			Part: clipPart}
	}
	return err
}

// taken writes what comes to a file: at most one byte more than so many.
func taken(file *os.File, from io.Reader, most int64) (n int64, err error) {
	out := bufio.NewWriterSize(file, 128<<10)
	n, err = io.Copy(out, io.LimitReader(from, most+1))
	if err != nil {
		return n, formError(err)
	}
	if err := out.Flush(); err != nil {
		return n, fmt.Errorf("no room for what is sent: %w", err)
	}
	return n, nil
}

// request is what is asked for; its pictures are in memory.
func (s *sent) request() (out jobs.Request, err error) {
	if s.clip != nil {
		out.Clip = s.clip.Path(clipPart)
	}
	for _, p := range s.parts {
		one := make([]byte, p.size)
		if _, err := s.file.ReadAt(one, p.at); err != nil {
			return out, err
		}
		switch p.name {
		case "options":
			if out.Options, out.ClipOptions, err = parseOptions(one); err != nil {
				return out, err
			}
		case "content":
			out.Content = one
		case "style":
			out.Styles = append(out.Styles, one)
		case "init":
			out.Init = one
		case "content_mask":
			out.ContentMask = one
		case "strength_mask":
			out.StrengthMask = one
		case "style_mask":
			out.StyleMasks = append(out.StyleMasks, one)
		}
	}
	return out, nil
}

// formError is the error of a form that ends too early, or is too large.
func formError(err error) error {
	if errors.As(err, new(*http.MaxBytesError)) || errors.As(err, new(problem)) ||
		errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return bad("the multipart form cannot be read: %v", err)
}

// parseOptions reads options as JSON and validates them as flags are.
func parseOptions(data []byte) (nst.Options, jobs.ClipOptions, error) {
	wrong := func(format string, args ...any) error {
		return problem{Status: 422, Title: "Invalid options", Detail: "options: " + fmt.Sprintf(format, args...),
			Field: "options"}
	}
	var o options
	fail := func(err error) (nst.Options, jobs.ClipOptions, error) {
		return nst.Options{}, jobs.ClipOptions{}, err
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		return fail(wrong("a JSON object is wanted"))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		if name, err := wrongOption(data); err != nil {
			return fail(problem{Status: 422, Title: "Invalid option", Detail: name + " " + err.Error(), Field: name})
		}
		return fail(wrong("%s", strings.TrimPrefix(err.Error(), "json: ")))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fail(wrong("there is something after the object"))
	}
	checked := o.Options
	if checked.Start == nst.StartPicture {
		checked.Start = "" // the picture is a part, which may come later
	}
	if err := checked.Validate(); err != nil {
		return fail(err)
	}
	return o.Options, o.ClipOptions, nil
}

// wrongOption is the first option, by its name in JSON, that cannot be read, and what is wrong
// with it; nil: each can, by itself.
func wrongOption(data []byte) (name string, err error) {
	var given map[string]json.RawMessage
	if json.Unmarshal(data, &given) != nil {
		return "", nil
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: given[name]})
		if err != nil {
			return "", nil
		}
		decoder := json.NewDecoder(bytes.NewReader(one))
		decoder.DisallowUnknownFields()
		var kind *json.UnmarshalTypeError
		switch err := decoder.Decode(&options{}); {
		case err == nil:
		case errors.As(err, &kind):
			return name, fmt.Errorf("is a %s; %s is wanted", kind.Value, wanted(kind.Type))
		case strings.Contains(err.Error(), "unknown field"):
			return name, errors.New("is no option; /openapi.json lists them")
		default:
			return name, fmt.Errorf("cannot be read: %s", strings.TrimPrefix(err.Error(), "json: "))
		}
	}
	return "", nil
}

// options are a request's, and what a job tells of them.
type options struct {
	nst.Options
	jobs.ClipOptions
}

// wanted is what a type is in JSON.
func wanted(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// optionName is the name in JSON of a field of options.
func optionName(field string) string {
	if f, ok := reflect.TypeFor[options]().FieldByName(field); ok {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
			return name
		}
	}
	switch field {
	case "ContentMask":
		return "content_mask"
	case "StyleMasks":
		return "style_mask"
	case "StrengthMask":
		return "strength_mask"
	case "Picture":
		return "init"
	}
	return field
}
