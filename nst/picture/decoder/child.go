package decoder

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// order is what a child is asked for. The file comes with it.
type order struct {
	At, Size int64
	Decode   bool  // else the header alone is read
	Memory   int64 // that decoding may take
	Glance   bool  // what is decoded is not wanted, and what takes more memory not decoded
	Slowness int
}

// answer is a line of a child's: what the header says, and then, as the last, that it is done.
// A Raw follows, if it is wanted.
type answer struct {
	Error string // completes "PICTURE …"
	Info  picture.Info
	Last  bool
	Spent bool // the child has had enough
}

// What a child may have in addition to what a file takes, and how much it may have taken of
// memory and of a processor's time to be kept for another file.
const (
	ownMemory   = 256 << 20 // stacks, compiled WebAssembly, what waits to be collected
	keepMemory  = 256 << 20
	keepTime    = 30 * time.Second
	restTime    = time.Second
	descriptors = 32
	parentFD    = 3
	setUp       = 111 // the exit status of a child that cannot begin, or talk to its parent
)

// init makes this process a child, if that is what it was started for: before main, and
// whatever program this is.
func init() {
	if os.Getenv(variable) == "" {
		return
	}
	var s unix.Stat_t
	if unix.Fstat(parentFD, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return // a program that came to a child's environment by another way
	}
	if err := serve(); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(setUp)
	}
	os.Exit(0)
}

// serving is a child, as it sees itself.
type serving struct {
	parent *net.UnixConn
	out    *bufio.Writer
	statm  *os.File // of the kernel's, of this process's memory
	base   int64    // bytes of it at the beginning
}

// serve answers orders until the parent has no more, or this process has had enough.
func serve() error {
	file := os.NewFile(parentFD, "parent")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	s := &serving{parent: conn.(*net.UnixConn), out: bufio.NewWriterSize(conn, 256<<10)}
	if err := file.Close(); err != nil {
		return err
	}
	if s.statm, err = os.Open("/proc/self/statm"); err != nil {
		return err
	}
	if s.base, err = s.memory(); err != nil {
		return err
	}
	if err := confine(); err != nil {
		return err
	}
	// What the last file took is taken by the next one, if that comes soon.
	rest := time.AfterFunc(restTime, debug.FreeOSMemory)
	for spent := false; !spent; rest.Reset(restTime) {
		o, file, err := s.next()
		rest.Stop()
		if err != nil {
			return err
		}
		if spent, err = s.do(o, file); err != nil {
			return err
		}
		if err := s.out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// bound sets a limit of this process's own, which is never above the one that it was started with:
// what the kernel would refuse.
func bound(resource int, wanted uint64, last bool) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil {
		return err
	}
	l.Cur = min(wanted, l.Max)
	if last {
		l.Max = l.Cur
	}
	return unix.Setrlimit(resource, &l)
}

// confine takes from this process what decoding does not need. A kernel that knows no filters
// of system calls is no reason not to decode.
func confine() error {
	// Go's runtime would ignore that the processor's time is over.
	action := struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}{handler: 0} // SIG_DFL: the process ends
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGXCPU),
		uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0); errno != 0 {
		return errno
	}
	for resource, value := range map[int]uint64{unix.RLIMIT_NOFILE: descriptors, unix.RLIMIT_CORE: 0,
		unix.RLIMIT_FSIZE: 0} {
		if err := bound(resource, value, true); err != nil {
			return err
		}
	}
	kernel, err := arch.GetInfo("")
	if err != nil || !seccomp.Supported() {
		return nil
	}
	// The older names are missing where the processor is newer than they.
	known := slices.DeleteFunc(slices.Clone(refused), func(name string) bool {
		_, ok := kernel.SyscallNames[name]
		return !ok
	})
	filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: known}},
	}}
	if err := seccomp.LoadFilter(filter); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the filter of system calls: %w", err)
	}
	return nil
}

// refused are the system calls that decoding does not need.
var refused = []string{
	// No network.
	"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4",
	// No other program.
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill", "pidfd_open",
	"pidfd_getfd", "pidfd_send_signal",
	// No file.
	"open", "openat", "openat2", "creat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat",
	"link", "linkat", "symlink", "symlinkat", "truncate", "mount", "chroot", "open_by_handle_at",
	// None of these by another way.
	"io_uring_setup", "bpf", "userfaultfd", "unshare", "setns",
}

// memory is what this process has of its own, by the kernel's reckoning: what it may write to.
func (s *serving) memory() (int64, error) {
	text := make([]byte, 256)
	n, err := s.statm.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	var size, resident, shared, code, libraries, data int64
	if _, err := fmt.Sscan(string(text[:n]), &size, &resident, &shared, &code, &libraries, &data); err != nil {
		return 0, err
	}
	return data * int64(os.Getpagesize()), nil
}

// next waits for an order. The error is io.EOF when there are no more.
func (s *serving) next() (o order, file *os.File, err error) {
	line, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, size, _, _, err := s.parent.ReadMsgUnix(line, rights)
	if err != nil {
		return o, nil, err
	}
	if n == 0 {
		return o, nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil || len(messages) != 1 {
		return o, nil, errors.Join(err, errBroken)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return o, nil, errors.Join(err, errBroken)
	}
	return o, os.NewFile(uintptr(fds[0]), "picture"), json.Unmarshal(line[:n], &o)
}

// do does what is ordered, and says whether this process has had enough then. The error is
// that of talking to the parent.
func (s *serving) do(o order, file *os.File) (spent bool, err error) {
	defer file.Close()
	// The file stays where it is: as memory it is the kernel's. What is before it is in it, for
	// a mapping begins with a page.
	var whole []byte
	if o.Size > 0 {
		if whole, err = unix.Mmap(int(file.Fd()), 0, int(o.At+o.Size), unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, unix.Munmap(whole)) }()
	}
	data := whole[o.At:][:o.Size:o.Size]
	a, raw := answer{}, (*picture.Raw)(nil)
	header := time.Second + time.Duration(o.Size)*time.Microsecond
	if err := s.limit(min(o.Memory, headerMemory(o.Size)), time.Duration(o.Slowness)*header); err != nil {
		return false, err
	}
	h, err := picture.ReadHeader(data)
	if err == nil {
		a.Info = h.Info
	}
	if err == nil && o.Decode && !(o.Glance && a.Info.Memory > o.Memory) {
		if err := s.tell(a); err != nil {
			return false, err
		}
		if err := s.limit(min(o.Memory, 2*a.Info.Memory), time.Duration(o.Slowness)*a.Info.Time); err != nil {
			return false, err
		}
		if raw, err = decodeRaw(h, o.Memory); err == nil && o.Glance {
			raw = nil
		}
	}
	if err != nil {
		a.Error = err.Error()
	}
	a.Last = true
	taken, err := s.memory()
	if err != nil {
		return false, err
	}
	a.Spent = taken > s.base+keepMemory || used() > keepTime
	if err := s.tell(a); err != nil || a.Error != "" || raw == nil {
		return a.Spent, err
	}
	_, err = raw.WriteTo(s.out)
	return a.Spent, err
}

// headerMemory is what the header of a file of so many bytes may take.
func headerMemory(size int64) int64 { return 8 * size }

// decodeRaw is picture's; tests have others.
var decodeRaw = (*picture.Header).Raw

// tell sends an answer.
func (s *serving) tell(a answer) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if _, err := s.out.Write(append(line, '\n')); err != nil {
		return err
	}
	return s.out.Flush()
}

// limit has the kernel end this process when it takes more, from now on.
func (s *serving) limit(memory int64, cpu time.Duration) error {
	now, err := s.memory()
	if err != nil {
		return err
	}
	most := uint64(max(now, s.base)) + uint64(min(memory, math.MaxInt64/4)) + ownMemory
	debug.SetMemoryLimit(int64(most) - s.base - ownMemory/2) // so that what can be collected is
	seconds := uint64((used()+cpu)/time.Second) + 1
	return errors.Join(bound(unix.RLIMIT_DATA, most, false), bound(unix.RLIMIT_CPU, seconds, false))
}

// used is how much of a processor's time this process has taken.
func used() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
