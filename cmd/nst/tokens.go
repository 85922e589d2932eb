package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/seed9bb5c928/nst/nst/httpapi"
)

// leastToken is how long a token has to be.
const leastToken = 16

// readTokens reads a file of tokens, one a line, as "name: token" or the token alone; #
// begins a comment.
func readTokens(path string) (all []httpapi.Token, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("--token-file: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		t := httpapi.Token{Name: fmt.Sprintf("line %d", n), Secret: line}
		if name, secret, named := strings.Cut(line, ":"); named {
			t = httpapi.Token{Name: strings.TrimSpace(name), Secret: strings.TrimSpace(secret)}
		}
		if len(t.Secret) < leastToken {
			return nil, usage("--token-file: the token in line %d of %s has %d characters; %d or more will do, "+
				"such as of: openssl rand -hex 24", n, path, len(t.Secret), leastToken)
		}
		all = append(all, t)
	}
	if err := lines.Err(); err != nil {
		return nil, usage("--token-file: %w", err)
	}
	if len(all) == 0 {
		return nil, usage("--token-file: there is no token in %s", path)
	}
	return all, nil
}

// tokenFile is a file of tokens that is read again when it changes, and on SIGHUP.
type tokenFile struct {
	path   string
	read   string // what it was when it was read
	hangup chan os.Signal
}

// openTokens reads a file; what happens to it from now on is not missed.
func openTokens(path string) (*tokenFile, []httpapi.Token, error) {
	f := &tokenFile{path: path, hangup: make(chan os.Signal, 1)}
	signal.Notify(f.hangup, syscall.SIGHUP)
	f.read = f.stamp()
	tokens, err := readTokens(path)
	if err != nil {
		signal.Stop(f.hangup)
	}
	return f, tokens, err
}

func (f *tokenFile) stamp() string {
	info, err := os.Stat(f.path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime(), info.Size())
}

// watch hands over the tokens whenever they are read again. What cannot be read changes
// nothing.
func (f *tokenFile) watch(ctx context.Context, set func([]httpapi.Token), log *slog.Logger) {
	defer signal.Stop(f.hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.hangup:
		case <-time.After(2 * time.Second):
			now := f.stamp()
			if now == f.read {
				continue
			}
			f.read = now
		}
		tokens, err := readTokens(f.path)
		if err != nil {
			log.Error("the tokens are as they were", "error", err)
			continue
		}
		set(tokens)
		log.Info("the tokens were read again", "count", len(tokens))
	}
}
