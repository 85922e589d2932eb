package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/httpapi/client"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/picture/decoder"
	"github.com/seed9bb5c928/nst/nst/video"
)

// submitOptions are the flags of nst submit.
type submitOptions struct {
	*transferFlags
	clipFlags
	server, tokenFile, ca string
	output, format, job   string
	detach, json, quiet   bool
	sends                 map[string]bool // flags that are sent
	answers               time.Duration   // how long an answer may take; 0: two minutes
}

// Variables of the environment that say what flags say.
const (
	serverVariable = "NST_SERVER"
	tokenVariable  = "NST_TOKEN"
)

func newSubmitCommand() *cobra.Command {
	o := &submitOptions{}
	c := &cobra.Command{
		Use:   "submit CONTENT STYLE… -o OUT --server URL",
		Short: "Have a picture or a clip made by a service, as stylize and video make it here",
		Long: `nst submit sends pictures to a service (nst serve), shows how far it is, and writes the
result. Flags are stylize's, and for a clip video's, but for those about this machine. The
content is a clip where OUT, or with --detach CONTENT, ends as one does. Interrupted, the job
goes on there; --job takes its result later.`,
		Example: `  nst submit photo.jpg painting.jpg -o out.png --server https://nst.example.com --token-file token
  nst submit clip.mp4 painting.jpg -o out.mp4 --server https://nst.example.com --token-file token
  nst submit photo.jpg painting.jpg --detach --server http://127.0.0.1:8080
  nst submit --job ID -o out.png --server http://127.0.0.1:8080`,
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), args, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.registerService(f)
	f.StringVar(&o.tokenFile, "token-file", "", "a file with the token (default: $"+tokenVariable+" is the token)")
	f.StringVarP(&o.output, "output", "o", "", "the picture to write: "+picture.Endings+"; - is standard output; or "+
		"the clip: "+video.Endings)
	f.StringVar(&o.format, "format", "", "of the picture (default: by the name's ending; png on standard output)")
	f.StringVar(&o.job, "job", "", "follow this job, which was submitted before, in place of a new one")
	f.BoolVar(&o.detach, "detach", false, "print the job's id, and do not wait for it")
	o.sends = map[string]bool{}
	f.VisitAll(func(f *pflag.Flag) { o.sends[f.Name] = false })
	o.transferFlags = newTransferFlags(f)
	o.clipFlags.register(o.transferFlags)
	f.VisitAll(func(f *pflag.Flag) {
		if _, ours := o.sends[f.Name]; !ours {
			o.sends[f.Name] = f.Name != "quality"
		}
	})
	o.remote = true
	for _, here := range notRemote {
		_ = f.MarkHidden(here)
	}
	f.BoolVar(&o.json, "json", false, "print the job as one JSON object")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	return c
}

// registerService adds the flags by which a service is found.
func (o *submitOptions) registerService(f *pflag.FlagSet) {
	f.StringVar(&o.server, "server", "", "the service's URL (default: $"+serverVariable+", else http://127.0.0.1:8080)")
	f.StringVar(&o.ca, "ca", "",
		"certificates of the authorities that the service's is checked by (default: the system's)")
}

// notRemote are the flags that are about the machine that computes.
var notRemote = []string{"device", "model", "autotune", "bits"}

func (o *submitOptions) run(ctx context.Context, args []string, stdout, stderr io.Writer) (failed error) {
	for _, flag := range notRemote {
		if o.flags.Changed(flag) {
			return usage("--%s is about the machine that computes, which is the service's", flag)
		}
	}
	if o.job != "" {
		var given []string
		o.flags.Visit(func(f *pflag.Flag) {
			if o.sends[f.Name] {
				given = append(given, "--"+f.Name)
			}
		})
		if len(given) > 0 {
			return usage("--job follows a job that there is: %s cannot change it", strings.Join(given, " and "))
		}
	}
	switch {
	case o.output == standard && o.json:
		return usage("-o - writes the picture to standard output: --json needs a file")
	case o.job != "" && len(args) > 0:
		return usage("--job follows a job that there is: give no pictures")
	case o.job == "" && len(args) < 2:
		return usage("submit takes a content picture and at least one style picture: nst submit CONTENT STYLE… -o OUT")
	case o.detach && (o.output != "" || o.job != ""):
		return usage("--detach does not wait for the result: -o and --job do not go with it")
	case !o.detach && o.output == "":
		return usage("-o is missing: the picture to write, %s; or --detach", picture.Endings)
	}
	clip := clipKind(o.output) != "" || o.output == "" && len(args) > 0 && clipKind(args[0]) != ""
	if clip && o.format != "" {
		return usage("--format is of pictures: what a clip is %s says by its ending", o.output)
	}
	if clip {
		o.answers = 10 * time.Minute // it is looked at, and stored
	}
	service, err := o.service()
	if err != nil {
		return err
	}
	var out target
	switch {
	case clip && o.output != "":
		if err := picture.CheckWritable(o.output); err != nil {
			return err
		}
	case !o.detach:
		if out, err = newTarget(o.output, o.format, picture.Encoding{Bits: 8, Quality: o.quality}, stdout); err != nil {
			return err
		}
	}
	say := func(format string, args ...any) {
		if !o.quiet {
			fmt.Fprintf(stderr, "nst: "+format+"\n", args...)
		}
	}
	var job *client.Job
	if o.job != "" {
		if job, err = service.Job(ctx, o.job); err != nil {
			return o.told(err)
		}
	} else {
		request, err := o.request(ctx, out, clip, args)
		if err != nil {
			return err
		}
		if info, err := os.Stat(request.Clip); err == nil && info.Size() > tellSending {
			say("sending %s, %s", request.Clip, humanize.IBytes(uint64(info.Size())))
		}
		if job, err = service.Submit(ctx, request); err != nil {
			return o.told(err)
		}
	}
	if err := o.fits(job); err != nil && !o.detach {
		return err
	}
	if o.detach {
		if o.json {
			return json.NewEncoder(stdout).Encode(job)
		}
		fmt.Fprintln(stdout, job.Id)
		return nil
	}
	id := job.Id
	service.Patience = 10 * time.Minute // as long as a restart takes
	service.Waits = func(err error) { say("the service does not answer (%v); trying again", oneLine(err)) }
	defer func() {
		if failed != nil && job != nil && !job.State.Finished() {
			fmt.Fprintf(stderr, "nst: the job goes on at the service; its result: nst submit --job %s -o %s\n", id,
				o.output)
		}
	}()
	show := newFrames(o.quiet, stderr)
	waiting := false
	job, err = service.Follow(ctx, id, func(j *client.Job) {
		if j.State == client.Queued && !waiting {
			waiting = true
			say("the job %s waits for its turn", id)
		}
		if p := j.Progress; p != nil && !j.State.Finished() {
			now := nst.Progress{Scale: p.Scale, Iteration: p.Iteration, Iterations: p.Iterations, Fraction: p.Fraction,
				Seconds: p.Seconds}
			if j.Costs != nil {
				now.Costs.Total = j.Costs.Total
			}
			if j.Clip != nil {
				show.remote(value(p.Frame), value(p.Frames), now)
			} else {
				show.progress.update(now)
			}
		}
	})
	show.done()
	if err != nil {
		return o.told(err)
	}
	for _, w := range value(job.Warnings) {
		fmt.Fprintf(stderr, "nst: %s\n", w)
	}
	if job.State != client.Done {
		return errors.New(strings.TrimSuffix(fmt.Sprintf("the job %s %s: %s", id, job.State, value(job.Error)), ": "))
	}
	if err := o.collect(ctx, service, job, out); err != nil {
		return o.told(err)
	}
	switch {
	case o.json:
		return json.NewEncoder(stdout).Encode(job)
	case !o.quiet && job.Clip != nil:
		fmt.Fprintf(stderr, "%s: %d frames of %d×%d in %.3g s at the service, by %s\n", o.output,
			value(job.Result.Frames), job.Width, job.Height, job.Result.Seconds, value(job.Device))
	case !o.quiet && job.Result != nil:
		fmt.Fprintf(stderr, "%s: %d×%d, %d iterations in %.3g s at the service, by %s\n", o.output, job.Width,
			job.Height, job.Result.Iterations, job.Result.Seconds, value(job.Device))
	}
	return nil
}

// collect writes the result of a job that is done.
func (o *submitOptions) collect(ctx context.Context, service *client.Service, job *client.Job, out target) error {
	if job.Clip == nil {
		var made bytes.Buffer
		if err := service.Result(ctx, job.Id, &made); err != nil {
			return err
		}
		return o.save(ctx, out, made.Bytes())
	}
	file, err := picture.Begin(o.output)
	if err != nil {
		return err
	}
	if err := service.ResultFile(ctx, job.Id, file.File); err != nil {
		return errors.Join(err, file.Abandon())
	}
	return file.Commit()
}

// fits says whether a job makes what is to be written.
func (o *submitOptions) fits(job *client.Job) error {
	kind := cmp.Or(string(value(job.Options.Container)), jobs.DefaultContainer)
	switch {
	case job.Clip == nil && clipKind(o.output) != "":
		return usage("-o is %s, and the job %s makes a picture: %s", o.output, job.Id, picture.Endings)
	case job.Clip != nil && clipKind(o.output) != kind:
		return usage("-o is %s, and the job %s makes a clip that ends in .%s", o.output, job.Id, kind)
	}
	return nil
}

// tellSending is how large a clip is of which it is said that it is being sent.
const tellSending = 16 << 20

// clipKind is the container that a file's name says it has; empty: it is no clip.
func clipKind(path string) string {
	ending := strings.TrimPrefix(strings.ToLower(filepath.Ext(path)), ".")
	if ending == "m4v" {
		ending = "mp4"
	}
	if jobs.Containers[ending] == "" {
		return ""
	}
	return ending
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// told is what the service answers, in a user's words.
func (o *submitOptions) told(err error) error {
	var p *client.ProblemError
	switch {
	case !errors.As(err, &p):
		return err
	case p.Status == http.StatusUnauthorized:
		if o.tokenFile != "" || os.Getenv(tokenVariable) != "" {
			return usage("the service does not know the token that was given")
		}
		return usage("the service wants a token: --token-file, or $%s", tokenVariable)
	case p.Field != nil:
		return usage("--%s", strings.ReplaceAll(p.Detail, "_", "-"))
	case p.Status == http.StatusNotFound && o.job != "":
		return usage("--job: there is no job %s at the service", o.job)
	case p.Status == 400, p.Status == 413, p.Status == 422:
		return usageError{err}
	}
	return fmt.Errorf("the service: %w", err)
}

// service is the client.
func (o *submitOptions) service() (*client.Service, error) {
	token := os.Getenv(tokenVariable)
	if o.tokenFile != "" {
		data, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, usage("--token-file: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = cmp.Or(o.answers, 2*time.Minute)
	if o.ca != "" {
		data, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, usage("--ca: %w", err)
		}
		trusted := x509.NewCertPool()
		if !trusted.AppendCertsFromPEM(data) {
			return nil, usage("--ca: %s holds no certificates", o.ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	}
	const patience = 10 * time.Second
	url := cmp.Or(o.server, os.Getenv(serverVariable), "http://127.0.0.1:8080")
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return nil, usage("--server is %q; a URL such as https://nst.example.com will do", url)
	}
	s, err := client.New(url, token, &http.Client{Transport: transport})
	if err != nil {
		return nil, usage("--server is %q, or its token: %w", url, err)
	}
	s.Patience = patience
	return s, nil
}

// request reads the files that are sent, as they are: the service looks at them. A clip is
// read while it is sent.
func (o *submitOptions) request(ctx context.Context, out target, clip bool, args []string) (r client.Request,
	err error) {
	options, err := o.options(ctx)
	if err != nil {
		return r, err
	}
	if out.path != "" {
		out.fit(&options)
	}
	all := struct {
		nst.Options
		jobs.ClipOptions
	}{Options: options}
	if o.flags.Changed("frame-iterations") {
		all.FrameIterations = &o.frameIterations
	}
	if o.flags.Changed("long-term") {
		all.LongTerm = o.longTerm
	}
	if o.flags.Changed("passes") {
		all.Passes = o.passes
	}
	if o.output != "" {
		all.Container = clipKind(o.output)
	}
	r.Options = all
	read := func(path string) []byte {
		if path == "" || err != nil {
			return nil
		}
		if err = o.claim(path); err != nil {
			return nil
		}
		var data []byte
		if path == standard {
			data, err = io.ReadAll(os.Stdin)
		} else {
			data, err = os.ReadFile(path)
		}
		if err != nil {
			err = usage("%s cannot be read: %w", path, err)
		}
		return data
	}
	if clip {
		if _, err := os.Stat(args[0]); err != nil {
			return r, usage("%s cannot be read: %w", args[0], err)
		}
		r.Clip = args[0]
	} else {
		r.Content = read(args[0])
	}
	for _, path := range args[1:] {
		r.Styles = append(r.Styles, read(path))
	}
	if options.Start == nst.StartPicture {
		r.Init = read(o.flags.Lookup("init").Value.String())
	}
	r.ContentMask, r.StrengthMask = read(o.contentMask), read(o.strengthMask)
	for _, path := range o.styleMasks {
		r.StyleMasks = append(r.StyleMasks, read(path))
	}
	return r, err
}

// save writes the service's PNG, as it is if that is what is wanted.
func (o *submitOptions) save(ctx context.Context, out target, png []byte) error {
	if out.format == picture.PNG {
		if out.path == standard {
			_, err := out.stdout.Write(png)
			return err
		}
		return picture.WriteFile(out.path, png)
	}
	r := decoder.Request{Data: png}
	info, err := decoders.Inspect(ctx, r, 0)
	if err != nil {
		return err
	}
	made, err := decoders.Decode(ctx, r)
	if err != nil {
		return err
	}
	out.encoding.Comment = info.Comment
	return out.save(made)
}
