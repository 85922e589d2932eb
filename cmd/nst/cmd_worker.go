package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// workerOptions are the flags of what connects to NATS and makes jobs.
type workerOptions struct {
	transferFlags // device and model alone
	nats          string
	creds         string
	ca, cert, key string
	memoryLimit   nst.Bytes
	keepEvery     time.Duration
	jsonLog       bool
	logLevel      slog.Level
}

func (o *workerOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.nats, "nats", "", "URLs of NATS servers with JetStream, with commas between")
	f.StringVar(&o.creds, "nats-creds", "", "credentials file for NATS (JWT and seed)")
	f.StringVar(&o.ca, "nats-ca", "", "certificates of the authorities that NATS's are checked by")
	f.StringVar(&o.cert, "nats-cert", "", "client certificate for NATS, with --nats-key")
	f.StringVar(&o.key, "nats-key", "", "its key")
	f.StringVar(&o.device, "device", "auto",
		"auto, cpu, cuda or cuda:N; of several, with commas between, each makes jobs of its own")
	f.StringVar(&o.model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
	f.Var(textFlag{&o.memoryLimit}, "memory-limit",
		"the memory that a job may use, such as 4G: of the worker's process on the CPU, of the device elsewhere; a "+
			"job's own can only be lower (default: what is free)")
	f.DurationVar(&o.keepEvery, "checkpoint-every", 10*time.Second, "how often the state of a running job is kept")
	f.BoolVar(&o.jsonLog, "json-log", false, "log as JSON")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "what is logged: debug, info, warn or error, and above")
}

func (o *workerOptions) log(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.logLevel}
	if o.jsonLog {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func (o *workerOptions) connect(ctx context.Context, log *slog.Logger) (*nats.Conn, error) {
	options := []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // else it was closed
				log.Warn("the connection to NATS is lost", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", "error", err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to NATS again") }),
	}
	if (o.cert == "") != (o.key == "") {
		return nil, usage("--nats-cert and --nats-key go together: give both or neither")
	}
	for flag, path := range map[string]string{"nats-creds": o.creds, "nats-ca": o.ca, "nats-cert": o.cert,
		"nats-key": o.key} {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, usage("--%s: %s cannot be read: %w", flag, path, err)
		}
		if flag == "nats-creds" {
			if _, err := nkeys.ParseDecoratedNKey(data); err != nil {
				return nil, usage("--%s: %s holds no credentials: %w", flag, path, err)
			}
		}
	}
	if o.creds != "" {
		options = append(options, nats.UserCredentials(o.creds))
	}
	if o.ca != "" {
		options = append(options, nats.RootCAs(o.ca))
	}
	if o.cert != "" {
		options = append(options, nats.ClientCert(o.cert, o.key))
	}
	nc, err := jobs.Connect(ctx, o.nats, options...)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("--nats: %w", err)
	}
	return nc, err
}

// engines opens an engine on each device.
func (o *workerOptions) engines(ctx context.Context, stderr io.Writer) (all []*nst.Engine, err error) {
	for device := range strings.SplitSeq(o.device, ",") {
		one := o.transferFlags
		one.device = device
		e, err := one.open(ctx, stderr)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

func closeAll(engines []*nst.Engine) {
	for _, e := range engines {
		e.Close()
	}
}

// work has the engines work until ctx is done, or one hangs: then the process ends here,
// because nothing can end what hangs in libtorch.
func work(ctx context.Context, q *jobs.Queue, engines []*nst.Engine, stderr io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	errs := make([]error, len(engines))
	for i, e := range engines {
		working.Go(func() {
			if errs[i] = q.Work(ctx, e, ""); errs[i] != nil {
				cancel()
			}
		})
	}
	working.Wait()
	err := errors.Join(errs...)
	if errors.Is(err, jobs.ErrStuck) {
		fmt.Fprintf(stderr, "nst: %v; the worker ends\n", err)
		os.Exit(1)
	}
	return err
}

func newWorkerCommand() *cobra.Command {
	o := &workerOptions{}
	c := &cobra.Command{
		Use:   "worker --nats URL",
		Short: "Make the jobs of nst serve on another machine",
		Long: `nst worker takes jobs from the NATS servers that nst serve uses, one at a time for
each device. Ended, it gives its job back with a checkpoint; killed, its job goes on
elsewhere from the last one.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.nats == "" {
				o.nats = os.Getenv(natsVariable)
			}
			if o.nats == "" {
				return usage("--nats is missing: the URL of a NATS server, such as nats://host:4222; nst serve " +
					"--nats-listen prints its own")
			}
			return runWorker(c.Context(), o, c.ErrOrStderr())
		},
	}
	o.register(c.Flags())
	c.Flags().BoolVar(&o.lowPriority, "low-priority", false, "leave the processor to others that want it")
	return c
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("nst %s takes no arguments, only flags; %q is one", c.Name(), args[0])
	}
	return nil
}

func runWorker(ctx context.Context, o *workerOptions, stderr io.Writer) error {
	log := o.log(stderr)
	stop, err := startTracing(ctx, log)
	if err != nil {
		return err
	}
	defer stop()
	nc, err := o.connect(ctx, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	q, err := jobs.Open(ctx, nc, jobs.Config{Join: true, MemoryLimit: int64(o.memoryLimit),
		CheckpointEvery: o.keepEvery, Log: log})
	if err != nil {
		return err
	}
	defer q.Close()
	engines, err := o.engines(ctx, stderr)
	if err != nil {
		return err
	}
	defer closeAll(engines)
	return work(ctx, q, engines, stderr)
}
