package httpapi_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// tab is a page in a real browser.
type tab struct {
	t      *testing.T
	ctx    context.Context
	mutex  sync.Mutex
	thrown []string // by the page's scripts
}

func (p *tab) errors() []string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.thrown
}

// browse starts Chromium, which scripts/test installs, at a width and a colour
// scheme, and opens the page.
func browse(t *testing.T, url string) *tab {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	require.NotEmpty(t, path, "Chromium is not here: apt-get install chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.WindowSize(1280, 900))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 8*time.Minute)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, func(e any) {
		if x, ok := e.(*runtime.EventExceptionThrown); ok {
			p.mutex.Lock()
			defer p.mutex.Unlock()
			p.thrown = append(p.thrown, x.ExceptionDetails.Text)
		}
	}))
	p.run(chromedp.Navigate(url), chromedp.WaitVisible("#start"))
	return p
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, actions...))
}

// ask runs an action that has an answer.
func ask[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, action)
	require.NoError(p.t, err)
	return v
}

// tell sends the browser a command.
func tell[P, R any](p *tab, command cdp.Command[P, R], params P) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, command, params)
	require.NoError(p.t, err)
}

// text is an element's text now.
func (p *tab) text(id string) string {
	p.t.Helper()
	return ask(p, chromedp.Evaluate[string]("document.getElementById('"+id+"').textContent"))
}

func (p *tab) is(script string) bool {
	p.t.Helper()
	return ask(p, chromedp.Evaluate[bool](script))
}

func (p *tab) until(script string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.is(script) }, 3*time.Minute, 100*time.Millisecond, script)
}

// shoot takes screenshots, light and dark and at a phone's width, into
// $NST_SCREENSHOTS, to be looked at.
func (p *tab) shoot(name string) {
	p.t.Helper()
	folder := os.Getenv("NST_SCREENSHOTS")
	for _, look := range []struct {
		name, scheme string
		width        int64
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"phone", "light", 390}, {"phone-dark", "dark", 390}} {
		tell(p, emulation.SetEmulatedMedia,
			emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme",
				Value: look.scheme}}})
		tell(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: look.width,
			Height: 900, DeviceScaleFactor: 1, Mobile: look.width < 500})
		data := ask(p, chromedp.FullScreenshot(90))
		assert.True(p.t, p.is("document.documentElement.scrollWidth <= innerWidth"),
			"%s at %d pixels is wider than the screen", name, look.width)
		if folder != "" {
			require.NoError(p.t, os.WriteFile(filepath.Join(folder, name+"-"+look.name+".jpg"), data, 0o644))
		}
	}
	tell(p, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
	// A click goes to where a button was when it was asked for: the page has to have
	// its old shape again, and to have shown it.
	p.until("innerWidth > 1000")
	ask(p, chromedp.Evaluate[bool]("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => "+
		"done(true))))", chromedp.EvalAwaitPromise))
}

// set sets a form field as a person does.
func (p *tab) set(id, value string) {
	p.t.Helper()
	ask(p, chromedp.Evaluate[bool]("(()=>{const e=document.getElementById('"+id+"');e.value='"+value+"';"+
		"e.dispatchEvent(new Event('input',{bubbles:true}));return true})()"))
}

const previews = "Number((document.getElementById('after').dataset.source||'').match(/n=(\\d+)/)?.[1]||0)"

// Someone makes a picture, watches it, compares and downloads it, cancels another,
// and tries a file that is no picture.
func TestPage(t *testing.T) {
	nsttest.Long(t)
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	jobstest.Work(t, s.queue, jobstest.EngineOf(t, nsttest.Model(t)))
	p := browse(t, s.url)
	p.shoot("empty")

	// Nothing chosen, then no picture: each error is where it belongs.
	p.run(chromedp.Click("#start"))
	assert.Contains(t, p.text("content-error"), "Choose a photograph")
	none := nsttest.Writer(t, t.TempDir())("holiday.png", []byte("this is no picture"))
	p.run(chromedp.SetUploadFiles("#content", []string{none}),
		chromedp.SetUploadFiles("#style", []string{nsttest.Demo(t, "style.png")}), chromedp.Click("#start"))
	p.until("document.getElementById('content-error').textContent.includes('not a picture of a known format')")
	assert.True(t, p.is("document.getElementById('content').getAttribute('aria-invalid') === 'true'"))
	p.set("size", "9000000")
	p.run(chromedp.SetUploadFiles("#content", []string{nsttest.Demo(t, "content.png")}), chromedp.Click("#start"))
	p.until("document.getElementById('size-error').textContent.includes('at most 65535 pixels')")
	p.shoot("rejected")

	p.set("size", "128")
	p.set("iterations", "110")
	p.set("strength", "0.75")
	assert.Equal(t, "75 %", p.text("strength-value"))
	p.run(chromedp.Click("#start"))
	p.until(previews + " >= 1")
	p.until("document.querySelectorAll('#curve polyline').length > 0")
	p.shoot("running")
	p.until(previews + " >= 2")
	assert.Contains(t, p.text("job-line"), "left")
	p.until("document.getElementById('job-state').textContent === 'Done'")
	p.until("document.getElementById('after').src.endsWith('/result') && " +
		"document.getElementById('before').naturalWidth > 0")
	p.set("slider", "40")
	assert.True(t, p.is("document.getElementById('before').style.clipPath.includes('60%')"))
	p.shoot("done")
	list := s.queue.List()
	require.Len(t, list, 1)
	assert.Equal(t, 0.75, *list[0].Options.Strength)

	folder := t.TempDir()
	tell(p, browser.SetDownloadBehavior,
		browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: folder})
	p.run(chromedp.Click("#download"))
	var got []byte
	require.Eventually(t, func() bool {
		found, _ := filepath.Glob(filepath.Join(folder, "*.png"))
		if len(found) == 1 {
			got, _ = os.ReadFile(found[0])
		}
		return len(got) > 0
	}, 20*time.Second, 100*time.Millisecond)
	_, _, want := s.get("/v1/jobs/" + list[0].ID + "/result")
	assert.Equal(t, want, got)

	// Another one, which is cancelled; then the first again, from the gallery.
	p.run(chromedp.Click("#close"))
	p.set("iterations", "5000")
	p.run(chromedp.Click("#start"))
	p.until(previews + " >= 1")
	p.run(chromedp.Click("#cancel"))
	p.until("document.getElementById('job-state').textContent === 'Cancelled'")
	p.until("document.querySelectorAll('#gallery button').length === 2")
	p.run(chromedp.Click("#gallery li:nth-child(2) button"))
	p.until("document.getElementById('job-state').textContent === 'Done'")
	p.shoot("gallery")

	// By keyboard: everything that can be used can be reached, and has a name.
	assert.True(t, p.is(`[...document.querySelectorAll("button,input,select,a[href]")].every(e => e.tabIndex >= 0)`))
	assert.True(t, p.is(`[...document.querySelectorAll("input,select")].every(e => e.labels && e.labels.length > 0)`))
	assert.True(t, p.is(`[...document.querySelectorAll("img")].every(e => e.hasAttribute("alt"))`))
	assert.Empty(t, p.errors())
}

// With a token, the page asks for it.
func TestPageAsksForToken(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{Tokens: []httpapi.Token{{Secret: "a token of the test"}}})
	p := browse(t, s.url)
	p.run(chromedp.WaitVisible("#login"))
	p.set("token", "another")
	p.run(chromedp.Click("#login button"))
	p.until("document.getElementById('login-error').textContent === 'That is not the token.'")
	p.set("token", "a token of the test")
	p.run(chromedp.Click("#login button"), chromedp.WaitNotVisible("#login"))
	p.until("document.getElementById('gallery-empty').textContent.startsWith('Nothing yet')")
	p.run(chromedp.WaitVisible("#logout"))
	p.shoot("signed-in")
	p.run(chromedp.Click("#logout"), chromedp.WaitVisible("#login"))
	p.until("document.getElementById('gallery-empty').textContent === 'Sign in to see it.'")
	assert.Empty(t, p.errors())
}
