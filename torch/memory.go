package torch

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hostMemory reads Linux's accounts of the machine, of this process, its limits and the control
// groups that it is in: what is free is the least of what these leave.
func hostMemory() (Memory, error) {
	var m Memory
	var addresses, data int64
	for file, fields := range map[string]map[string]*int64{
		"/proc/meminfo":     {"MemAvailable": &m.Free, "MemTotal": &m.Total},
		"/proc/self/status": {"VmRSS": &m.Allocated, "VmHWM": &m.Peak, "VmSize": &addresses, "VmData": &data},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			return Memory{}, err
		}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			if field, ok := fields[name]; ok {
				var kib int64
				fmt.Sscan(value, &kib)
				*field = kib << 10
			}
		}
	}
	// ulimit's -v and -d: not all that is mapped is memory, and so what they leave is not all used.
	for resource, used := range map[int]int64{unix.RLIMIT_AS: addresses, unix.RLIMIT_DATA: data} {
		var limit unix.Rlimit
		if unix.Getrlimit(resource, &limit) == nil && limit.Cur < uint64(m.Total) {
			m.Total = int64(limit.Cur)
			m.Free = min(m.Free, max(0, m.Total-used))
		}
	}
	if groups, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for _, g := range memoryGroups(string(groups), "/sys/fs/cgroup") {
			m.Total, m.Free = min(m.Total, g.limit), min(m.Free, g.free)
		}
	}
	return m, nil
}

// memoryGroup is a control group's limit, and what it leaves.
type memoryGroup struct{ limit, free int64 }

// memoryGroups are the groups with a limit that a process is in, by /proc/self/cgroup
// and the folder where groups are mounted: of both versions, and what they are nested in.
func memoryGroups(self, mounted string) (found []memoryGroup) {
	for line := range strings.Lines(self) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		v2 := parts[0] == "0" && parts[1] == ""
		root, limit, usage, cache := mounted, "memory.max", "memory.current", []string{"inactive_file", "active_file"}
		if !v2 {
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			root, limit, usage, cache = path.Join(mounted,
				"memory"), "memory.limit_in_bytes", "memory.usage_in_bytes",
				[]string{"total_inactive_file", "total_active_file"}
		}
		// In a container the path may be the host's, of which the mount is a part.
		for at := path.Join("/", parts[2]); ; at = path.Dir(at) {
			if g, ok := readGroup(path.Join(root, at), limit, usage, cache); ok {
				found = append(found, g)
			}
			if at == "/" {
				break
			}
		}
	}
	return found
}

// readGroup reads a group's files. What its page cache has can be had back.
func readGroup(folder, limit, usage string, cache []string) (g memoryGroup, ok bool) {
	number := func(name string) (int64, bool) {
		text, err := os.ReadFile(path.Join(folder, name))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil // version 2 has "max"
	}
	const none = 1 << 60 // version 1 has a number near 2⁶³
	used, known := number(usage)
	if g.limit, ok = number(limit); !ok || !known || g.limit > none {
		return g, false
	}
	g.free = g.limit - used
	if stat, err := os.ReadFile(path.Join(folder, "memory.stat")); err == nil {
		for line := range strings.Lines(string(stat)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			for _, c := range cache {
				if name == c {
					n, _ := strconv.ParseInt(value, 10, 64)
					g.free += n
				}
			}
		}
	}
	g.free = min(max(g.free, 0), g.limit)
	return g, true
}
