package jobs

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/crypto/bcrypt"
)

// URLFile is where in its folder a server that listens writes its URL.
const URLFile = "worker-url"

// Server is a NATS server with JetStream in this process, its store in a folder.
type Server struct {
	server  *server.Server
	options *server.Options
	config  server.JetStreamConfig // as it was opened
	lock    *os.File               // held while the folder is ours
	local   net.Listener           // for workers of this machine, where others need TLS; nil: the server's does
	url     string
	token   string
	log     *slog.Logger
	ended   chan struct{} // closed by Close
	watched sync.WaitGroup
}

// WorkerToken admits a worker of another process to a server: in place of the token that is
// in URL it may say its own, as nats://NAME:TOKEN@HOST. One that is taken away ends its
// connections. Who has one can read and write all that there is.
type WorkerToken struct{ Name, Token string }

// ServerConfig says how a server is embedded.
type ServerConfig struct {
	// Dir is the folder of the store.
	Dir string
	// Listen is the address for workers in other processes, such as
	// "127.0.0.1:4222"; empty: none.
	Listen string
	// MaxBytes limits the store; 0 means three quarters of what the disk has free.
	MaxBytes int64
	// TLS, if it is not nil, is what workers in other processes have to connect with: tls://
	// in place of nats://. Those of this machine need not: see LocalURL.
	TLS *tls.Config
	// Workers are tokens of workers of their own.
	Workers []WorkerToken
	// Log is told of what the server warns of; nil: of nothing.
	Log *slog.Logger
}

// natsLog hands what NATS says to a log.
type natsLog struct{ *slog.Logger }

func (l natsLog) Noticef(format string, v ...any) { l.Debug("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Warnf(format string, v ...any)   { l.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Errorf(format string, v ...any)  { l.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Fatalf(format string, v ...any)  { l.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l natsLog) Debugf(string, ...any)           {}
func (l natsLog) Tracef(string, ...any)           {}

// StartServer starts a server. Who connects over the network needs the token that
// it keeps in Dir: see URL. The caller closes it.
func StartServer(c ServerConfig) (*Server, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("the data folder %s is in use by another process", c.Dir)
	}
	o := &server.Options{
		ServerName: "nst", JetStream: true, StoreDir: c.Dir, NoSigs: true, NoLog: c.Log == nil,
		DontListen: c.Listen == "",
		// What a power cut may cost; a killed process costs nothing.
		SyncInterval: 5 * time.Second, JetStreamMaxStore: c.MaxBytes, MaxPayload: 8 << 20,
	}
	s := &Server{lock: lock, ended: make(chan struct{}), log: cmp.Or(c.Log, slog.New(slog.DiscardHandler))}
	if c.Listen != "" {
		host, port, err := net.SplitHostPort(c.Listen)
		if err == nil {
			o.Port, err = strconv.Atoi(port)
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("%q is no address: 127.0.0.1:4222 is one", c.Listen)
		}
		if o.Host = host; o.Port == 0 {
			o.Port = server.RANDOM_PORT
		}
		if s.token, err = token(filepath.Join(c.Dir, "token")); err != nil {
			s.Close()
			return nil, err
		}
		if o.Users, err = users(s.token, c.Workers); err != nil {
			s.Close()
			return nil, err
		}
		if c.TLS != nil {
			o.TLS, o.TLSConfig, o.TLSTimeout = true, c.TLS, 5
		}
	}
	s.options = o.Clone()
	if s.server, err = server.NewServer(o); err != nil {
		s.Close()
		return nil, fmt.Errorf("the embedded NATS server: %w", err)
	}
	if c.Log != nil {
		s.server.SetLoggerV2(natsLog{c.Log}, false, false, false)
	}
	s.server.Start()
	if !s.server.ReadyForConnections(20 * time.Second) {
		s.Close()
		return nil, fmt.Errorf("the embedded NATS server does not start; is %s in use by another?",
			cmp.Or(c.Listen, c.Dir))
	}
	s.config = *s.server.JetStreamConfig()
	s.config.StoreDir = c.Dir // to which the server adds a folder
	if c.Listen != "" {
		scheme := "nats://"
		if c.TLS != nil {
			scheme = "tls://"
			if err := s.relay(); err != nil {
				s.Close()
				return nil, err
			}
		}
		s.url = scheme + ourUser + ":" + s.token + "@" + s.server.Addr().String()
		path := filepath.Join(c.Dir, URLFile)
		if err := renameio.WriteFile(path, []byte(s.url+"\n"), 0o600, renameio.IgnoreUmask()); err != nil {
			s.Close()
			return nil, fmt.Errorf("the embedded NATS server's URL: %w", err)
		}
	}
	s.watched.Go(s.reopen)
	return s, nil
}

// healthEvery is how often the store is looked at.
const healthEvery = 5 * time.Second

// reopen opens the store anew when it could not be written to, as on a full disk, and there is
// room again: the server itself would write to it no more. Connections stay.
func (s *Server) reopen() {
	for wait := healthEvery; ; {
		select {
		case <-s.ended:
			return
		case <-time.After(wait):
		}
		health := s.server.Healthz(nil)
		if !strings.Contains(health.Error, "write error") && s.server.JetStreamEnabled() {
			wait = healthEvery
			continue
		}
		if free, err := freeBytes(s.options.StoreDir); err != nil || free < reserve {
			continue
		}
		wait = min(2*wait, time.Minute)
		config := s.config
		err := errors.Join(s.server.ShutdownJetStream(), s.server.EnableJetStream(&config))
		if err != nil {
			s.log.Error("the store cannot be opened again", "why", health.Error, "error", err)
			continue
		}
		s.log.Warn("the store was opened again", "why", health.Error)
	}
}

// freeBytes is what a folder's disk has free.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// ourUser is who connects with the token in the folder.
const ourUser = "nst"

// users are who may connect: with the token in the folder, and with its own.
func users(token string, workers []WorkerToken) ([]*server.User, error) {
	var all []*server.User
	for _, w := range append([]WorkerToken{{ourUser, token}}, workers...) {
		for _, other := range all {
			if other.Username == w.Name {
				return nil, fmt.Errorf("the worker's name %q is taken", w.Name)
			}
		}
		// The server warns of what it can read; tokens are long and random, so the least cost does.
		hash, err := bcrypt.GenerateFromPassword([]byte(w.Token), bcrypt.MinCost)
		if err != nil {
			return nil, fmt.Errorf("the token of the worker %q: %w", w.Name, err)
		}
		all = append(all, &server.User{Username: w.Name, Password: string(hash)})
	}
	return all, nil
}

// SetWorkers changes the workers that have tokens of their own. Who is connected by one
// that is not there any more is disconnected.
func (s *Server) SetWorkers(workers []WorkerToken) error {
	all, err := users(s.token, workers)
	if err != nil {
		return err
	}
	o := s.options.Clone()
	o.Users = all
	if err := s.server.ReloadOptions(o); err != nil {
		return fmt.Errorf("the embedded NATS server's workers: %w", err)
	}
	return nil
}

// relay listens on the loopback interface for workers of this machine, which connect through
// the process: they need a token as others do, and no certificate.
func (s *Server) relay() (err error) {
	if s.local, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("the embedded NATS server: %w", err)
	}
	go func() {
		for {
			outside, err := s.local.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // there are too many files, say
				s.log.Warn("a worker of this machine cannot connect", "error", err)
				time.Sleep(100 * time.Millisecond)
				continue
			}
			inside, err := s.server.InProcessConn()
			if err != nil {
				outside.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{outside, inside}, {inside, outside}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					outside.Close()
					inside.Close()
				}()
			}
		}
	}()
	return nil
}

// LocalURL is what workers of this machine connect to: URL, or where that wants TLS an
// address that only this machine reaches, without.
func (s *Server) LocalURL() string {
	if s.local == nil {
		return s.url
	}
	return "nats://" + ourUser + ":" + s.token + "@" + s.local.Addr().String()
}

// token is the one in a file, which is made if it is not there.
func token(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		data = []byte(rand.Text())
		err = renameio.WriteFile(path, data, 0o600, renameio.IgnoreUmask())
	}
	if err != nil {
		return "", fmt.Errorf("the embedded NATS server's token: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("the embedded NATS server's token: %s is empty: delete it, and another is made", path)
	}
	return text, nil
}

// URL is what workers in other processes connect to, the token in it; empty if the
// server does not listen.
func (s *Server) URL() string { return s.url }

// MaxBytes is how much the server stores.
func (s *Server) MaxBytes() int64 { return s.config.MaxStore }

// Connect connects to the server without a network.
func (s *Server) Connect() (*nats.Conn, error) {
	options := []nats.Option{nats.InProcessServer(s.server), nats.Name("nst")}
	if s.token != "" {
		options = append(options, nats.UserInfo(ourUser, s.token))
	}
	return nats.Connect("", options...)
}

// Close stops the server, once; what it has stored stays.
func (s *Server) Close() {
	close(s.ended)
	s.watched.Wait()
	if s.local != nil {
		s.local.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	s.lock.Close()
}

// Connect connects to NATS servers by their URLs, with commas between, and keeps
// trying to stay connected until the connection is closed. It tries for some seconds,
// until ctx is done, unless a server refuses the credentials or is not the one that
// the options trust.
func Connect(ctx context.Context, urls string, options ...nats.Option) (*nats.Conn, error) {
	options = append([]nats.Option{nats.Name("nst"), nats.MaxReconnects(-1), nats.ReconnectWait(500 * time.Millisecond),
		nats.Timeout(5 * time.Second)}, options...)
	for tries := 1; ; tries++ {
		nc, err := nats.Connect(urls, options...)
		switch {
		case err == nil:
			return nc, nil
		case refused(err):
			return nil, fmt.Errorf("the NATS server at %s and this program do not accept each other (certificates "+
				"and credentials say who is who): %w", redacted(urls), err)
		case tries == 5:
			return nil, fmt.Errorf("no NATS server answers at %s: %w", redacted(urls), err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// refused says whether to try again is in vain.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrTLS)
}

// redacted leaves out the part of URLs that may be secret.
func redacted(urls string) string {
	var out []string
	for u := range strings.SplitSeq(urls, ",") {
		scheme, rest, ok := strings.Cut(u, "://")
		if !ok {
			scheme, rest = "nats", u
		}
		if _, host, ok := strings.Cut(rest, "@"); ok {
			rest = "…@" + host
		}
		out = append(out, scheme+"://"+rest)
	}
	return strings.Join(out, ",")
}
