package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"reflect"
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
			Detail: "a job is sent as multipart/form-data, with the parts content, style and options"}
	}
	key := r.Header.Get("Idempotency-Key")
	if len(key) > maxKey {
		return bad("the Idempotency-Key has %d bytes; %d will do", len(key), maxKey)
	}
	if r.ContentLength > a.config.MaxBytes {
		return &http.MaxBytesError{Limit: a.config.MaxBytes}
	}
	if key == "" && a.queue.Full() {
		return jobs.ErrQueueFull
	}
	body, err := a.receive(w, r)
	if err != nil {
		return err
	}
	defer body.Close()
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
	r.Body = body
	request, err := read(r)
	if err != nil {
		return err
	}
	request.Key, request.Owner = key, g.owner
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

// read reads a request's parts. What they say of their names and types does not
// count.
func read(r *http.Request) (out jobs.Request, err error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return out, bad("the multipart form cannot be read: %v", err)
	}
	seen := map[string]int{}
	for n := 0; ; n++ {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, formError(err)
		}
		if n == maxParts {
			return out, bad("there are more than %d parts", maxParts)
		}
		name := part.FormName()
		if seen[name]++; seen[name] > 1 && name != "style" && name != "style_mask" {
			return out, bad("the part %q is there twice", name)
		}
		if err := take(&out, name, part); err != nil {
			return out, err
		}
	}
	for _, name := range []string{"content", "style"} {
		if seen[name] == 0 {
			return out, problem{Status: 422, Title: "Missing part", Detail: "the part " + name +
				" is missing: a picture", Part: name}
		}
	}
	return out, nil
}

func take(out *jobs.Request, name string, part *multipart.Part) (err error) {
	if name == "options" {
		data, err := io.ReadAll(io.LimitReader(part, maxOptions+1))
		if err != nil {
			return formError(err)
		}
		if len(data) > maxOptions {
			return problem{Status: 413, Title: "Too large", Detail: fmt.Sprintf("the options may have %d bytes",
				maxOptions), Field: "options"}
		}
		out.Options, err = parseOptions(data)
		return err
	}
	var one []byte
	switch name {
	case "content", "style", "init", "content_mask", "style_mask", "strength_mask":
		if one, err = io.ReadAll(part); err != nil {
			return formError(err)
		}
	default:
		return bad("the part %.40q is unknown: content, style, options, init, content_mask, style_mask and "+
			"strength_mask are known", name)
	}
	switch name {
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
	return nil
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
func parseOptions(data []byte) (o nst.Options, err error) {
	wrong := func(format string, args ...any) error {
		return problem{Status: 422, Title: "Invalid options", Detail: "options: " + fmt.Sprintf(format, args...),
			Field: "options"}
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		return o, wrong("a JSON object is wanted")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return nst.Options{}, problem{Status: 422, Title: "Invalid option",
				Detail: fmt.Sprintf("%s is a %s; %s is wanted", kind.Field, kind.Value,
					wanted(kind.Type)), Field: kind.Field}
		}
		return nst.Options{}, wrong("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nst.Options{}, wrong("there is something after the object")
	}
	checked := o
	if checked.Start == nst.StartPicture {
		checked.Start = "" // the picture is a part, which may come later
	}
	if err := checked.Validate(); err != nil {
		return nst.Options{}, err
	}
	return o, nil
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

// optionName is the name in JSON of a field of nst.Options.
func optionName(field string) string {
	if f, ok := reflect.TypeFor[nst.Options]().FieldByName(field); ok {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
			return name
		}
	}
	switch field {
	case "ContentMask", "StyleMasks":
		return "content_mask"
	case "StrengthMask":
		return "strength_mask"
	case "Picture":
		return "init"
	}
	return field
}
