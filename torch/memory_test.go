package torch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The limits of control groups, as Linux writes them, of both versions and nested.
func TestMemoryGroups(t *testing.T) {
	mounted := t.TempDir()
	for name, text := range map[string]string{
		"a/memory.max": "2147483648\n", "a/memory.current": "1000\n", "a/memory.stat": "anon 5\ninactive_file " +
			"100\nactive_file 50\n",
		"a/b/memory.max": "max\n", "a/b/memory.current": "900\n",
		"a/b/c/memory.max": "1073741824\n", "a/b/c/memory.current": "1073741000\n",
		"a/b/c/memory.stat":                "inactive_file 200\n",
		"memory/old/memory.limit_in_bytes": "500000000\n", "memory/old/memory.usage_in_bytes": "400000000\n",
		"memory/old/memory.stat":       "total_inactive_file 7\n",
		"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "1\n",
	} {
		path := filepath.Join(mounted, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	assert.Equal(t, []memoryGroup{{1 << 30, 1<<30 - 1073741000 + 200}, {2 << 30, 2<<30 - 1000 + 150}},
		memoryGroups("0::/a/b/c\n", mounted))
	assert.Equal(t, []memoryGroup{{500000000, 100000007}}, memoryGroups("12:cpu:/x\n5:hugetlb,memory:/old\n", mounted))
	assert.Equal(t, []memoryGroup{{2 << 30, 2<<30 - 1000 + 150}}, memoryGroups("0::/a/elsewhere\n", mounted),
		"a container's path is the host's")
	assert.Empty(t, memoryGroups("", mounted))
	m, err := MemoryOf(CPU)
	require.NoError(t, err)
	assert.Positive(t, m.Free)
	assert.LessOrEqual(t, m.Free, m.Total)
}
