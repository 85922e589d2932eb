package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// A NATS server of the operator's own, with TLS both ways and users by JWT, takes
// those alone who have all that it asks for, and they learn what is wrong.
func TestNATSOfOnesOwn(t *testing.T) {
	nsttest.Long(t)
	nsttest.Idle(t)
	write := nsttest.Writer(t, t.TempDir())
	authority := newAuthority(t)
	trusted := x509.NewCertPool()
	require.True(t, trusted.AppendCertsFromPEM(authority.pem))
	serverCert, serverKey := authority.issue(t)
	pair, err := tls.X509KeyPair(serverCert, serverKey)
	require.NoError(t, err)

	operator, account, system := newKeys(t, nkeys.CreateOperator), newKeys(t, nkeys.CreateAccount), newKeys(t,
		nkeys.CreateAccount)
	claims := jwt.NewOperatorClaims(operator.public)
	accounts := &server.MemAccResolver{}
	for _, a := range []keys{account, system} {
		c := jwt.NewAccountClaims(a.public)
		if a == account {
			c.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1,
				Consumer: -1}
		}
		text, err := c.Encode(operator.pair)
		require.NoError(t, err)
		require.NoError(t, accounts.Store(a.public, text))
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(),
		NoSigs: true, NoLog: true, MaxPayload: 8 << 20,
		TLS: true, TLSVerify: true, TLSTimeout: 5, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted},
		TrustedOperators: []*jwt.OperatorClaims{claims}, AccountResolver: accounts, SystemAccount: system.public,
	})
	require.NoError(t, err)
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	require.True(t, s.ReadyForConnections(20*time.Second))

	credentials := func(account keys) string {
		user := newKeys(t, nkeys.CreateUser)
		text, err := jwt.NewUserClaims(user.public).Encode(account.pair)
		require.NoError(t, err)
		seed, err := user.pair.Seed()
		require.NoError(t, err)
		file, err := jwt.FormatUserConfig(text, seed)
		require.NoError(t, err)
		return write("user-"+user.public+".creds", file)
	}
	clientCert, clientKey := authority.issue(t)
	all := workerOptions{
		nats: "tls://" + s.Addr().String(), creds: credentials(account), ca: write("ca.pem", authority.pem),
		cert: write("client.pem", clientCert), key: write("client-key.pem", clientKey),
	}
	stranger, strangerKey := newAuthority(t).issue(t)
	for name, c := range map[string]struct {
		change func(o *workerOptions)
		says   string
	}{
		"all":            {func(*workerOptions) {}, ""},
		"no authority":   {func(o *workerOptions) { o.ca = "" }, "unknown authority"},
		"no certificate": {func(o *workerOptions) { o.cert, o.key = "", "" }, "tls://127.0.0.1"},
		"a stranger's certificate": {func(o *workerOptions) {
			o.cert, o.key = write("s.pem", stranger),
				write("s-key.pem", strangerKey)
		}, "tls://127.0.0.1"},
		"no credentials": {func(o *workerOptions) { o.creds = "" }, "Authorization"},
		"another's account": {func(o *workerOptions) {
			o.creds = credentials(newKeys(t,
				nkeys.CreateAccount))
		}, "Authorization"},
		"a file without credentials": {func(o *workerOptions) { o.creds = o.ca }, "ca.pem holds no credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			o := all
			c.change(&o)
			nc, err := o.connect(context.Background(), slog.New(slog.DiscardHandler))
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				assert.NotContains(t, err.Error(), "\n")
				return
			}
			require.NoError(t, err)
			defer nc.Close()
			q, err := jobs.Open(context.Background(), nc, jobs.Config{})
			require.NoError(t, err)
			defer q.Close()
			assert.Empty(t, q.List())
		})
	}
}

type keys struct {
	pair   nkeys.KeyPair
	public string
}

func newKeys(t *testing.T, create func() (nkeys.KeyPair, error)) keys {
	pair, err := create()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	return keys{pair, public}
}

// authority issues certificates for 127.0.0.1.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	template := certificate("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return &authority{template, key, encode("CERTIFICATE", der)}
}

func (a *authority) issue(t *testing.T) (cert, key []byte) {
	template := certificate("127.0.0.1")
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
