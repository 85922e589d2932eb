// Command nst gives photographs the style of paintings: neural style transfer
// on libtorch. Flags come in, calls of the packages go out; see README.md beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/seed9bb5c928/nst/cmd/nst/internal/bench"
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/nst/video"
	"github.com/seed9bb5c928/nst/torch"
	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2   // wrong usage or unusable input
	exitInterrupted = 130 // the best picture so far is written first
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// What nobody reads any more is not written: that is an error then, and no reason to end. (To
	// ignore the signal would have other programs that are started ignore it too.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		<-ctx.Done()
		stop() // a second Ctrl-C ends the program at once
	}()
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if status == exitUsage && os.Getenv(natsVariable) != "" {
		status = exitChild
	}
	os.Exit(status)
}

// usageError marks an error as the user's: exit status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the program, in-process: tests call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "nst",
		Short: "Give photographs the style of paintings",
		Long: `nst changes a photograph until a convolutional network (VGG-19) sees in it the
content of the photograph and the textures of a painting.

Exit status: 0 done; 1 failed; 2 wrong usage or unusable input; 130 interrupted
(the best picture so far is written first).`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	libtorch := root.PersistentFlags().String("libtorch", "",
		"the libtorch to load, in place of $LIBTORCH and those that nst doctor lists")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		endWithTerminal(c)
		switch c.Name() {
		case "submit", "ready", "install", "serve": // which load none; serve's workers do
			if *libtorch == "" {
				return nil
			}
		}
		return useLibtorch(*libtorch, stderr)
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newStylizeCommand(), newTextureCommand(), newBatchCommand(), newVideoCommand(), newBenchCommand(),
		newCompareCommand(), newCheckCommand(), newWeightsCommand(), newInstallCommand(), newDoctorCommand(),
		newServeCommand(), newWorkerCommand(), newSubmitCommand(), newReadyCommand())
	return exitStatus(root.ExecuteContext(ctx), stderr)
}

// endWithTerminal has a terminal that is closed end a run as Ctrl-C does, which is not to be lost.
// The service reads its files again by that signal; nohup ignores it.
func endWithTerminal(c *cobra.Command) {
	if c.Name() == "serve" || signal.Ignored(syscall.SIGHUP) {
		return
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	c.SetContext(ctx)
}

// version is what the program was compiled of: the commit, with the time of its making,
// the header that its library has to be of, and Go's version.
func version() string {
	commit, changed := "(unknown commit)", ""
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return commit
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if revision := settings["vcs.revision"]; revision != "" {
		commit = revision[:min(12, len(revision))] + " of " + settings["vcs.time"]
	}
	if settings["vcs.modified"] == "true" {
		changed = ", changed since"
	}
	return fmt.Sprintf("%s%s, ABI %.8s, %s", commit, changed, torch.ABI(), info.GoVersion)
}

// exitStatus prints the errors, each in one line, and says how the program ends.
func exitStatus(err error, stderr io.Writer) int {
	if err == nil {
		return exitDone
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "nst: interrupted")
		return exitInterrupted
	}
	for _, one := range apart(err) {
		fmt.Fprintln(stderr, "nst:", oneLine(one))
	}
	var mine usageError
	for _, unusable := range []error{nst.ErrInvalidOption, picture.ErrPicture, picture.ErrOutput, nst.ErrCheckpoint,
		vgg19.ErrNetwork, torch.ErrDevice, video.ErrClip, video.ErrStore, video.ErrTool,
		video.ErrFlow, video.ErrNoFlow} {
		if errors.Is(err, unusable) {
			return exitUsage
		}
	}
	var benchs bench.UsageError
	if errors.As(err, &mine) || errors.As(err, &benchs) || strings.HasPrefix(err.Error(), "unknown command ") {
		return exitUsage
	}
	return exitFailed
}

// apart are the errors that errors.Join has joined; an error of another kind is one.
func apart(err error) (out []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || reflect.TypeOf(err) != reflect.TypeOf(errors.Join(err)) {
		return []error{err}
	}
	for _, one := range joined.Unwrap() {
		out = append(out, apart(one)...)
	}
	return out
}

// oneLine is the error in a user's words: flags for fields, no line breaks, and
// advice where memory ran out.
func oneLine(err error) string {
	text := err.Error()
	var option *nst.OptionError
	if errors.As(err, &option) {
		text = option.Text(flagName)
	}
	if errors.Is(err, torch.ErrOutOfMemory) {
		text = "out of memory: a smaller --size needs less (" + text + ")"
	}
	if errors.Is(err, torch.ErrDeviceLost) {
		text += "; a new process may be able to use it: start nst again"
	}
	return strings.Join(strings.Fields(text), " ")
}

// flagName is the flag of a field of nst.Options: StyleSize is --style-size.
func flagName(field string) string {
	switch field {
	case "Start", "Picture":
		return "--init"
	case "StyleMasks":
		return "--style-mask"
	}
	var name strings.Builder
	upper := func(i int) bool { return i < len(field) && field[i] >= 'A' && field[i] <= 'Z' }
	for i := range len(field) { // a word begins: StyleSize, TVWeight
		if upper(i) && i > 0 && (!upper(i-1) || !upper(i+1)) {
			name.WriteByte('-')
		}
		name.WriteString(strings.ToLower(field[i : i+1]))
	}
	return "--" + name.String()
}
