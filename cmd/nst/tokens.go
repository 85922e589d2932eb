package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed9bb5c928/nst/nst/httpapi"
)

// leastToken is how long a token has to be.
const leastToken = 16

// readTokens reads a file of tokens, one a line, as "name: token" or the token alone, and
// after the token what is granted; # begins a comment.
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
		t, err := readToken(line)
		if err != nil {
			return nil, usage("--token-file: line %d of %s: %w", n, path, err)
		}
		if t.Name == "" {
			t.Name, t.Admin = fmt.Sprintf("line %d", n), true
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

// hashed comes before a token's SHA-256 that is there in its place.
const hashed = "sha256:"

// readToken reads a line: "ann: TOKEN priority=1 at-once=2 waiting=20 pixels-a-day=50M admin".
func readToken(line string) (t httpapi.Token, err error) {
	if name, rest, named := strings.Cut(line, ":"); named && !strings.HasPrefix(line, hashed) {
		t.Name, line = strings.TrimSpace(name), rest
		if t.Name == "" || len(t.Name) > 64 {
			return t, fmt.Errorf("the name %.70q has not 1 to 64 characters", t.Name)
		}
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return t, errors.New("the token is missing")
	}
	t.Secret = words[0]
	if hash, ok := strings.CutPrefix(t.Secret, hashed); ok {
		sum, err := hex.DecodeString(hash)
		if err != nil || len(sum) != len(t.SHA256) {
			return t, fmt.Errorf("after %s come 64 hexadecimal digits, as of: printf %%s TOKEN | sha256sum", hashed)
		}
		t.Secret = ""
		copy(t.SHA256[:], sum)
	} else if len(t.Secret) < leastToken {
		return t, fmt.Errorf("the token has %d characters; %d or more will do, such as of: openssl rand -hex 24",
			len(t.Secret), leastToken)
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		number, unit, err := humanize.ParseSI(value)
		whole := err == nil && unit == "" && number == math.Trunc(number) && math.Abs(number) <= 1e15
		switch {
		case word == "admin":
			t.Admin = true
		case key == "priority" && whole:
			t.Priority = int(number)
		case key == "at-once" && whole && number >= 1:
			t.AtOnce = int(number)
		case key == "waiting" && whole && number >= 1:
			t.Waiting = int(number)
		case key == "pixels-a-day" && whole && number >= 1:
			t.PixelsADay = int64(number)
		default:
			return t, fmt.Errorf("%q is not known after a token: admin, priority=N, at-once=N, waiting=N and "+
				"pixels-a-day=N are, N being a whole number such as 50M", word)
		}
	}
	return t, nil
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
