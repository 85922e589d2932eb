package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// serveOptions are the flags of nst serve.
type serveOptions struct {
	workerOptions
	addr, data, listen, tokenFile string
	workers, maxJobs, replicas    int
	retention, patience           time.Duration
	maxPixels                     int64
	maxSeconds                    float64
	maxStore, maxClip             nst.Bytes
	maxFrames                     int
	proxies                       []string
	trusted                       []netip.Prefix
	check, repair                 bool
	tlsCert, tlsKey               string // of the API
	natsTLSCert, natsTLSKey       string // of the NATS server in this process
	workerTokens                  string
	access, accessFile            string
	apiTLS, natsTLS               *keyPair
}

func newServeCommand() *cobra.Command {
	o := &serveOptions{}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve a web page and an HTTP API",
		Long: `nst serve makes pictures for a web page and an HTTP API (/openapi.json describes it).
Jobs are kept in --data, by a NATS server in this process, or in a NATS cluster that
--nats names. Killed or restarted, it goes on with the jobs that there were.`,
		Example: `  nst serve
  nst serve --addr 0.0.0.0:8080 --token-file token --nats-listen 0.0.0.0:4222
  nst serve --nats nats://a:4222,nats://b:4222,nats://c:4222 --replicas 3 --workers 0`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c.Context(), o, c.ErrOrStderr()) },
	}
	f := c.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "address to listen at; beyond this machine with --token-file only")
	f.StringVar(&o.data, "data", "", "folder of the jobs (default: nst in the user's data folder)")
	f.StringVar(&o.tokenFile, "token-file", "",
		"a file with the tokens that clients have to know one of, each on a line: \"name: token\", and what is "+
			"granted (read again when it changes, and on SIGHUP)")
	f.StringVar(&o.tlsCert, "tls-cert", "",
		"certificate for HTTPS, with --tls-key (both are read again when they change)")
	f.StringVar(&o.tlsKey, "tls-key", "", "its key")
	f.StringSliceVar(&o.proxies, "trusted-proxy", nil,
		"addresses of proxies, such as 10.0.0.0/8, whose X-Forwarded-For and -Proto are believed")
	f.IntVar(&o.replicas, "replicas", 1, "on how many servers of the cluster that --nats names jobs are kept")
	f.IntVar(&o.workers, "workers", 1, "workers for each device, each a process of its own; 0: none, only others'")
	f.StringVar(&o.listen, "nats-listen", "",
		"address at which the NATS server in this process listens for workers of other processes (default: nowhere)")
	f.StringVar(&o.natsTLSCert, "nats-tls-cert", "",
		"certificate that --nats-listen has workers of other machines connect by, with --nats-tls-key")
	f.StringVar(&o.natsTLSKey, "nats-tls-key", "", "its key")
	f.StringVar(&o.workerTokens, "worker-tokens", "",
		"a file with tokens of workers of other machines, each on a line: \"name: token\" (read again when it changes)")
	f.IntVar(&o.maxJobs, "max-jobs", 200, "jobs that may wait or run")
	f.DurationVar(&o.retention, "retention", 7*24*time.Hour, "how long finished jobs are kept")
	f.DurationVar(&o.patience, "patience", 15*time.Second,
		"how long a worker may be silent before its job goes to another")
	f.Int64Var(&o.maxPixels, "max-pixels", 64<<20, "how large pictures and results may be")
	f.Float64Var(&o.maxSeconds, "max-seconds", 0, "how long workers may have a job: a picture is what it is then "+
		"(default: as long as it takes)")
	f.Var(textFlag{&o.maxClip}, "max-clip-bytes", "how large a clip may be that is sent (default: 1G)")
	f.IntVar(&o.maxFrames, "max-clip-frames", 3000, "how many frames it may have")
	f.Var(textFlag{&o.maxStore}, "max-store",
		"disk space for jobs, such as 50G (default: three quarters of what is free)")
	f.StringVar(&o.access, "access-log", "changes",
		"requests that are logged: off, changes (and what fails), or all, also those that only read")
	f.StringVar(&o.accessFile, "access-log-file", "", "a file that they are logged to, in place of the log")
	f.BoolVar(&o.check, "check", false, "look whether the store has all pictures of all jobs, whole, and end")
	f.BoolVar(&o.repair, "repair", false, "go on with what is whole of a store that is damaged; what is lost is logged")
	o.register(f)
	return c
}

// textFlag is a flag of a type that reads itself.
type textFlag struct{ value *nst.Bytes }

func (t textFlag) String() string     { return "" }
func (t textFlag) Type() string       { return "size" }
func (t textFlag) Set(s string) error { return t.value.UnmarshalText([]byte(s)) }

// prepare finds out what can be found out before anything starts.
func (o *serveOptions) prepare() (tokens []httpapi.Token, err error) {
	for _, text := range o.proxies {
		p, err := netip.ParsePrefix(text)
		if addr, e := netip.ParseAddr(text); e == nil {
			p, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, usage("--trusted-proxy is %q; an address or a network such as 10.0.0.0/8 will do", text)
		}
		o.trusted = append(o.trusted, p)
	}
	host, _, err := net.SplitHostPort(o.addr)
	if err != nil {
		return nil, usage("--addr is %q; an address such as 127.0.0.1:8080 will do", o.addr)
	}
	if o.maxFrames < 1 {
		return nil, usage("--max-clip-frames is %d; 1 or more will do", o.maxFrames)
	}
	if !(o.maxSeconds >= 0 && o.maxSeconds < 1e9) {
		return nil, usage("--max-seconds is %v; 0 or more will do", o.maxSeconds)
	}
	if o.workers < 0 || o.maxJobs < 1 || o.retention < time.Minute || o.maxPixels < 1 || o.patience < time.Second ||
		o.keepEvery <= 0 {
		return nil, usage("--workers is 0 or more, --max-jobs and --max-pixels 1 or more, --retention a minute or " +
			"more, --patience a second or more")
	}
	if o.nats != "" && o.listen != "" {
		return nil, usage("--nats names a server, --nats-listen is about the one in this process: give one of them")
	}
	if o.access != "off" && o.access != "changes" && o.access != "all" {
		return nil, usage("--access-log is %q; off, changes and all are known", o.access)
	}
	if o.apiTLS, err = openCertificate("--tls-cert and --tls-key", o.tlsCert, o.tlsKey); err != nil {
		return nil, err
	}
	if o.natsTLS, err = openCertificate("--nats-tls-cert and --nats-tls-key", o.natsTLSCert, o.natsTLSKey); err != nil {
		return nil, err
	}
	if (o.natsTLS != nil || o.workerTokens != "") && o.listen == "" {
		return nil, usage("--nats-tls-cert and --worker-tokens are about --nats-listen, which is missing")
	}
	if o.tokenFile != "" {
		return readTokens(o.tokenFile)
	} else if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage("--addr %s is beyond this machine, where anyone could use the service: give --token-file too",
			o.addr)
	}
	return nil, nil
}

// children are the arguments of each of the workers.
func (o *serveOptions) children() (all [][]string) {
	for device := range strings.SplitSeq(o.device, ",") {
		args := []string{"worker", "--low-priority", "--device", device, "--checkpoint-every", o.keepEvery.String(),
			"--log-level", o.logLevel.String()}
		for flag, value := range map[string]string{"model": o.model, "nats-creds": o.creds, "nats-ca": o.ca,
			"nats-cert": o.cert, "nats-key": o.key} {
			if value != "" {
				args = append(args, "--"+flag, value)
			}
		}
		if o.memoryLimit > 0 {
			args = append(args, "--memory-limit", fmt.Sprint(int64(o.memoryLimit)))
		}
		if o.jsonLog {
			args = append(args, "--json-log")
		}
		for range o.workers {
			all = append(all, args)
		}
	}
	return all
}

// readAgain is how files are read when they change.
type readAgain struct {
	*reloaded
	read func() error
}

// accessLog is where requests are logged, and what opens it anew.
func (o *serveOptions) accessLog(log *slog.Logger) (access *slog.Logger, reopen func() error, err error) {
	nothing := func() error { return nil }
	switch {
	case o.access == "off":
		return slog.New(slog.DiscardHandler), nothing, nil
	case o.accessFile == "":
		return log, nothing, nil
	}
	file := &logFile{path: o.accessFile}
	if err := file.open(); err != nil {
		return nil, nil, usage("--access-log-file: %w", err)
	}
	apart := *o
	apart.logLevel = slog.LevelInfo // of which requests are
	return apart.log(file), file.open, nil
}

func runServe(ctx context.Context, o *serveOptions, stderr io.Writer) error {
	if o.check && o.repair {
		return usage("--check changes nothing, and --repair does: choose one")
	}
	// Before they are read: what happens to them from now on is not missed.
	files := map[string]*reloaded{"api": reload(o.tlsCert, o.tlsKey), "nats": reload(o.natsTLSCert, o.natsTLSKey),
		"tokens": reload(o.tokenFile), "workers": reload(o.workerTokens), "log": reload()}
	var again []readAgain
	tokens, err := o.prepare()
	if err != nil {
		return err
	}
	if o.apiTLS != nil {
		again = append(again, readAgain{files["api"], o.apiTLS.read})
	}
	if o.natsTLS != nil {
		again = append(again, readAgain{files["nats"], o.natsTLS.read})
	}
	stderr = &locked{w: stderr} // its workers write to it too
	if os.Getenv("GOMEMLIMIT") == "" {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(serveMemory))
	}
	log := o.log(stderr)
	stopTracing, err := startTracing(ctx, log)
	if err != nil {
		return err
	}
	defer stopTracing()
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return usage("--addr: %w", err)
	}
	defer listener.Close()
	if o.workers > 0 && o.model == "" && !o.check {
		if o.model, err = defaultModel(); err != nil {
			return err
		}
	}
	c := jobs.Config{Replicas: o.replicas, MaxJobs: o.maxJobs, Retention: o.retention, Patience: o.patience,
		MaxPixels: o.maxPixels, MaxClipFrames: o.maxFrames, MaxSeconds: o.maxSeconds, Repair: o.repair,
		Log: log}
	var nc *nats.Conn
	url := o.nats // for the workers
	if o.nats != "" {
		nc, err = o.connect(ctx, log)
	} else {
		server, e := o.embedded(log, stderr)
		if e != nil {
			return e
		}
		defer server.Close()
		if o.workerTokens != "" {
			again = append(again, readAgain{files["workers"], func() error {
				workers, err := readWorkers(o.workerTokens)
				if err != nil {
					return err
				}
				return server.SetWorkers(workers)
			}})
		}
		c.Dir, c.MaxBytes, url = o.data, server.MaxBytes(), server.LocalURL()
		nc, err = server.Connect()
	}
	if err != nil {
		return err
	}
	defer nc.Close()
	q, err := jobs.Open(ctx, nc, c)
	if errors.As(err, new(*jobs.DamageError)) {
		if o.check {
			printDamage(err, stderr)
		}
		return fmt.Errorf("%w; with --repair, serve goes on without: first end the workers elsewhere, and copy the "+
			"folder of the jobs", err)
	}
	if err != nil {
		return err
	}
	defer q.Close()
	if o.check {
		return verify(ctx, q, stderr)
	}
	access, reopen, err := o.accessLog(log)
	if err != nil {
		return err
	}
	again = append(again, readAgain{files["log"], reopen})
	api := httpapi.New(q, httpapi.Config{Tokens: tokens, TrustedProxies: o.trusted, Log: log, Access: access,
		LogReads: o.access == "all", MaxClipBytes: int64(o.maxClip)})
	defer api.Close()
	server, scheme := api.Server(), "http"
	if o.apiTLS != nil {
		server.TLSConfig, scheme = o.apiTLS.config(), "https"
	}
	fmt.Fprintf(stderr, "nst: serving at %s://%s\n", scheme, listener.Addr())
	if o.tokenFile != "" {
		again = append(again, readAgain{files["tokens"], func() error {
			tokens, err := tokensOf(o.tokenFile, "--token-file")
			if err == nil && len(tokens) == 0 {
				tokens = nobody()
			}
			if err == nil {
				api.SetTokens(tokens)
			}
			return err
		}})
	}
	return o.serve(ctx, server, listener, again, func(ctx context.Context, args []string) error {
		return children{args, url, log, stderr}.run(ctx)
	}, log)
}

// embedded starts the NATS server in this process.
func (o *serveOptions) embedded(log *slog.Logger, stderr io.Writer) (server *jobs.Server, err error) {
	if o.data == "" {
		if o.data, err = dataFolder(); err != nil {
			return nil, err
		}
	}
	config := jobs.ServerConfig{Dir: o.data, Listen: o.listen, MaxBytes: int64(o.maxStore), Log: log}
	if o.listen == "" && o.workers > 0 {
		config.Listen = "127.0.0.1:0" // they have to know the token that is in the folder
	}
	if o.natsTLS != nil {
		config.TLS = o.natsTLS.config()
	}
	if o.workerTokens != "" {
		if config.Workers, err = readWorkers(o.workerTokens); err != nil {
			return nil, err
		}
	}
	if server, err = jobs.StartServer(config); err == nil && o.listen != "" {
		fmt.Fprintf(stderr, "nst: for workers of other processes: nst worker --nats \"$(cat %s)\"\n",
			filepath.Join(o.data, jobs.URLFile))
	}
	return server, err
}

// printDamage prints all that is lost.
func printDamage(err error, stderr io.Writer) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			printDamage(one, stderr)
		}
		return
	}
	if d, ok := err.(*jobs.DamageError); ok {
		for _, lost := range d.Lost {
			fmt.Fprintf(stderr, "nst: the stream %s has lost %s\n", d.Stream, lost)
		}
		return
	}
	if err = errors.Unwrap(err); err != nil {
		printDamage(err, stderr)
	}
}

// verify is --check.
func verify(ctx context.Context, q *jobs.Queue, stderr io.Writer) error {
	lost, err := q.Verify(ctx, true)
	for _, line := range lost {
		fmt.Fprintf(stderr, "nst: %s\n", line)
	}
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("the store has lost something of %d jobs", len(lost))
	}
	return err
}

// serve answers, with its workers and what is read again beside it, until ctx is done or a
// worker cannot work.
func (o *serveOptions) serve(ctx context.Context, server *http.Server, listener net.Listener, again []readAgain,
	work func(context.Context, []string) error, log *slog.Logger) (failed error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var working sync.WaitGroup
	for _, a := range again {
		working.Go(func() { a.watch(ctx, log, a.read) })
	}
	var mutex sync.Mutex
	for _, args := range o.children() {
		working.Go(func() {
			if err := work(ctx, args); err != nil {
				mutex.Lock()
				defer mutex.Unlock()
				failed = err
				stop()
			}
		})
	}
	working.Go(func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = server.Shutdown(last)
	})
	var served error
	if o.apiTLS != nil {
		served = server.ServeTLS(listener, "", "")
	} else {
		served = server.Serve(listener)
	}
	stop()
	working.Wait() // running jobs are kept
	if failed == nil && !errors.Is(served, http.ErrServerClosed) {
		failed = served
	}
	return failed
}

// serveMemory is what Go's memory is kept to while there is garbage.
const serveMemory = 96 << 20

// dataFolder is where jobs are kept if no folder is named.
func dataFolder() (string, error) {
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", usage("--data is missing: the folder of the jobs")
		}
		base = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(base, "nst"), nil
}
