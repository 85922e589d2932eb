package httpapi_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/video"
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

// browse starts Chromium, which scripts/test_tools installs, and opens the page.
func browse(t *testing.T, url string) *tab {
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	require.NotEmpty(t, program, "Chromium is not here: run scripts/test_tools")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
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
	p.scheme("light")
	p.run(chromedp.Navigate(url), chromedp.WaitVisible("#main"))
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
	p.wait(func() bool { return p.is(script) }, script)
}

// wait waits, and where that is in vain shows the page as it is then.
func (p *tab) wait(so func() bool, what string) {
	p.t.Helper()
	if !assert.Eventually(p.t, so, 3*time.Minute, 20*time.Millisecond, what) {
		p.shot("failed-" + p.t.Name())
		p.t.FailNow()
	}
}

// shoot looks at the page light and dark and at a phone's width: nothing is wider than
// the screen, and axe-core finds nothing that keeps people from using it. Screenshots go
// into $NST_SCREENSHOTS, to be looked at.
func (p *tab) shoot(name string) {
	p.t.Helper()
	folder := os.Getenv("NST_SCREENSHOTS")
	for _, look := range []struct {
		name, scheme string
		width        int64
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"phone", "light", 390}, {"phone-dark", "dark", 390}} {
		p.scheme(look.scheme)
		tell(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: look.width,
			Height: 900, DeviceScaleFactor: 1, Mobile: look.width < 500})
		assert.True(p.t, p.is("document.documentElement.scrollWidth <= innerWidth"),
			"%s at %d pixels is wider than the screen", name, look.width)
		if look.name == "light" || look.name == "phone-dark" { // both schemes, both widths
			assert.Empty(p.t, p.barriers(), "%s, %s", name, look.name)
		}
		if folder != "" {
			data := ask(p, chromedp.FullScreenshot(90))
			require.NoError(p.t, os.WriteFile(filepath.Join(folder, name+"-"+look.name+".jpg"), data, 0o644))
		}
	}
	tell(p, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
	// A click goes to where a button was when it was asked for: the page has to have
	// its old shape again, and to have shown it.
	p.until("innerWidth > 1000")
	p.settle()
}

// scheme sets the colours that are preferred; nothing moves by itself, or clicks would miss.
func (p *tab) scheme(name string) {
	p.t.Helper()
	tell(p, emulation.SetEmulatedMedia,
		emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
}

// settle waits until the page has been drawn.
func (p *tab) settle() {
	p.t.Helper()
	ask(p, chromedp.Evaluate[bool]("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => "+
		"done(true))))", chromedp.EvalAwaitPromise))
}

// barriers are what axe-core says is wrong with the page as it is.
func (p *tab) barriers() string {
	p.t.Helper()
	if !p.is("'axe' in window") {
		cache, err := os.UserCacheDir()
		require.NoError(p.t, err)
		cache = cmp.Or(os.Getenv("NST_CACHE"), filepath.Join(cache, "nst"))
		script, err := os.ReadFile(filepath.Join(cache, "axe-4.12.1.js"))
		require.NoError(p.t, err, "axe-core is not here: run scripts/test_tools")
		require.True(p.t, p.is(string(script)+";true"))
	}
	return ask(p, chromedp.Evaluate[string](`axe.run({resultTypes: ["violations"]}).then(r => r.violations.map(v =>
		v.id + ": " + v.help + "\n" + v.nodes.map(n => "  " + n.html.slice(0, 200) + "\n  " + n.failureSummary).join(
		"\n")).join("\n"))`, chromedp.EvalAwaitPromise))
}

// set sets a form field as a person does.
func (p *tab) set(id, value string) {
	p.t.Helper()
	ask(p, chromedp.Evaluate[bool]("(()=>{const e=document.getElementById('"+id+"');e.value='"+value+"';"+
		"e.dispatchEvent(new Event('input',{bubbles:true}));e.dispatchEvent(new Event('change',{bubbles:true}));"+
		"return true})()"))
}

const previews = "Number((document.getElementById('after').dataset.source||'').match(/n=(\\d+)/)?.[1]||0)"

// Someone makes a picture, watches it, compares and downloads it, cancels another,
// and tries a file that is no picture.
func TestPage(t *testing.T) {
	nsttest.Long(t)
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	jobstest.Work(t, s.queue, jobstest.EngineOf(t, nsttest.Model(t)))
	p := browse(t, s.url)
	p.run(chromedp.WaitVisible("#start"))
	p.shoot("empty")
	over := "document.getElementById('content-drop').dispatchEvent(new DragEvent('%s', {bubbles: true}))"
	p.is(fmt.Sprintf(over, "dragenter"))
	assert.True(t, p.is("document.getElementById('content-drop').classList.contains('over')"))
	p.shot("dragged-over")
	p.is(fmt.Sprintf(over, "dragleave"))

	// Nothing chosen, then no picture: each error is where it belongs.
	p.run(chromedp.Click("#start"))
	p.until("document.getElementById('content-error').textContent === 'Choose a photograph.'")
	none := nsttest.Writer(t, t.TempDir())("holiday.png", []byte("this is no picture"))
	p.run(chromedp.SetUploadFiles("#content", []string{none}),
		chromedp.SetUploadFiles("#style", []string{nsttest.Style(t)}), chromedp.Click("#start"))
	p.until("document.getElementById('content-error').textContent.includes('not a picture of a known format')")
	assert.True(t, p.is("document.getElementById('content').getAttribute('aria-invalid') === 'true'"))
	p.set("size", "9000000")
	p.run(chromedp.SetUploadFiles("#content", []string{nsttest.Content(t)}), chromedp.Click("#start"))
	p.until("document.getElementById('size-error').textContent.includes('at most 65535 pixels')")
	p.shoot("rejected")

	assert.Contains(t, p.text("estimate"), "not known yet")
	p.set("size", "128")
	p.set("iterations", "110")
	p.set("strength", "0.75")
	assert.Equal(t, "75 %", p.text("strength-value"))
	p.run(chromedp.Click("#start"))
	p.until(previews + " >= 1")
	p.until("document.querySelectorAll('#curve polyline').length > 0")
	p.shoot("running")
	ask(p, chromedp.Evaluate[bool](`window.moved = 0; new PerformanceObserver(list => {
		for (const e of list.getEntries()) moved += e.value;
	}).observe({type: "layout-shift"}); true`))
	p.until(previews + " >= 2")
	assert.Contains(t, p.text("job-line"), "left")
	p.until("document.getElementById('job-state').textContent === 'Done'")
	p.until("document.getElementById('after').src.endsWith('/result') && " +
		"document.getElementById('before').naturalWidth > 0")
	p.settle()
	assert.Less(t, ask(p, chromedp.Evaluate[float64]("moved")), 0.01, "nothing jumps while the picture forms")
	p.set("slider", "40")
	assert.True(t, p.is("document.getElementById('before').style.clipPath.includes('60%')"))
	p.shoot("done")
	list := s.queue.List()
	require.Len(t, list, 1)
	assert.Equal(t, 0.75, *list[0].Options.Strength)

	// The slider goes by keyboard and by pointer, full screen too.
	p.run(chromedp.Focus("#slider"), chromedp.KeyEvent(kb.ArrowRight))
	assert.True(t, p.is("document.getElementById('before').style.clipPath.includes('59%')"))
	p.drag("#compare", 0.5, 0.5, 0.2, 0.5)
	assert.True(t, p.is("document.getElementById('before').style.clipPath.includes('80%')"))
	p.run(chromedp.Click("#fullscreen"))
	p.until("document.fullscreenElement === document.getElementById('stage')")
	p.until("document.getElementById('fullscreen').textContent === 'Leave full screen'")
	assert.Empty(t, p.barriers())
	p.shot("fullscreen")
	p.run(chromedp.Click("#fullscreen"))
	p.until("!document.fullscreenElement")

	folder := t.TempDir()
	tell(p, browser.SetDownloadBehavior,
		browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: folder})
	for button, format := range map[string]string{"#download": "png", "#download-jpeg": "jpeg",
		"#download-webp": "webp"} {
		p.run(chromedp.Click(button))
		_, _, want := s.get("/v1/jobs/" + list[0].ID + "/result?format=" + format)
		require.Eventually(t, func() bool {
			got, _ := os.ReadFile(filepath.Join(folder, "nst-"+list[0].ID[:8]+"-result."+format))
			return bytes.Equal(want, got)
		}, 20*time.Second, 30*time.Millisecond, format)
	}

	// Another one, which is cancelled; then the first again, from the gallery.
	p.run(chromedp.Click("#close"))
	p.until("document.getElementById('estimate').textContent.includes('by the last pictures here')")
	assert.True(t, p.is("[...document.querySelectorAll('.time')].every(e => e.textContent.startsWith('about '))"))
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
	assert.True(t, p.is(`[...document.querySelectorAll("input,select")].every(e =>
		e.labels.length > 0 || e.ariaLabel)`))
	assert.True(t, p.is(`[...document.querySelectorAll("img")].every(e => e.hasAttribute("alt"))`))
	assert.Empty(t, p.errors())
}

// Someone tries the samples, gives the paintings weights, paints where each goes, runs it,
// and runs it again with other settings; then looks for it in the gallery.
func TestPagePaintsRegions(t *testing.T) {
	s := serve(t, true, jobs.Config{}, httpapi.Config{})
	p := browse(t, s.url)
	p.run(chromedp.WaitVisible("#start"), chromedp.Click("#content-samples [data-sample=coffee]"),
		chromedp.Click("#style-samples [data-sample=scream]"))
	p.until("document.querySelector('#content-thumbs img')?.naturalWidth === 384")
	p.until("document.querySelectorAll('#style-thumbs li').length === 1")
	assert.True(t, p.is("document.getElementById('regions').disabled"), "one painting has it all")
	// Dropped, a picture is as good as one that is chosen.
	ask(p, chromedp.Evaluate[bool](`fetch("/page/sample-shipwreck.jpg").then(r => r.blob()).then(b => {
		const dataTransfer = new DataTransfer();
		dataTransfer.items.add(new File([b], "ship.jpg", {type: "image/jpeg"}));
		const drop = new DragEvent("drop", {dataTransfer, cancelable: true});
		return !document.getElementById("style-drop").dispatchEvent(drop);
	})`, chromedp.EvalAwaitPromise))
	p.until("document.querySelectorAll('#style-thumbs img').length === 2")
	p.shoot("samples")
	assert.True(t, p.is("document.querySelector('#content-samples [data-sample=coffee]').ariaPressed === 'true'"))

	// A blend, by weights.
	p.run(chromedp.Focus("#style-thumbs li:nth-child(2) input"), chromedp.KeyEvent(kb.End))
	p.until("document.querySelector('#style-thumbs li:nth-child(2) output').textContent === '67 %'")
	p.set("size", "64")
	p.set("iterations", "2")
	first := p.start(s)
	assert.Equal(t, []float64{0.5, 1}, first.Options.StyleWeights)
	assert.Equal(t, []string{"content", "style-1", "style-2"}, first.Pictures())

	// Regions: without any of one painting it is not sent.
	p.run(chromedp.Click("#regions"), chromedp.WaitVisible("#canvas"))
	p.run(chromedp.Click("#start"))
	p.until("document.getElementById('regions-error').textContent.startsWith('Nothing is painted with ship.jpg')")
	// By keyboard: a stroke to the right from the middle; by pointer: one across the upper half.
	share := "document.querySelector('#palette label:nth-child(2) .share').textContent"
	p.run(chromedp.Focus("#canvas"), chromedp.KeyEvent("2"), chromedp.KeyEvent(" "))
	p.until("parseInt(" + share + ") > 0")
	for range 3 {
		p.run(chromedp.KeyEvent(kb.ArrowRight, chromedp.KeyModifiers(chromedp.ModifierShift)))
	}
	assert.Contains(t, p.text("live"), "Painted, ship.jpg")
	p.set("brush-size", "30")
	p.drag("#canvas", 0.1, 0.25, 0.9, 0.25)
	p.shoot("regions")
	painted := ask(p, chromedp.Evaluate[string](share))
	p.run(chromedp.Click("[data-fill=bottom]"))
	p.until(share + " !== '" + painted + "'")
	p.run(chromedp.Click("#undo"))
	p.until(share + " === '" + painted + "'")
	second := p.start(s)
	assert.Equal(t, []string{"content", "style-1", "style-2", "content-mask", "style-mask-1", "style-mask-2"},
		second.Pictures())
	assert.Empty(t, second.Options.StyleWeights)
	mask := s.picture(second.ID, "content-mask")
	at := func(x, y float64) float32 {
		return mask.Pixels[int(y*float64(mask.Height))*mask.Width+int(x*float64(mask.Width))]
	}
	assert.Equal(t, []float32{1, 1, 0, 0}, []float32{at(0.5, 0.25), at(0.55, 0.5), at(0.5, 0.9), at(0.1, 0.6)})
	for i, level := range []float32{0, 1} {
		one := s.picture(second.ID, fmt.Sprintf("style-mask-%d", i+1))
		assert.Equal(t, level, slices.Min(one.Pixels))
		assert.Equal(t, level, slices.Max(one.Pixels))
	}

	// Again with another strength: all else is as it was.
	p.run(chromedp.Click("#style-thumbs li .remove"))
	p.run(chromedp.Click("#again"))
	p.until("document.querySelectorAll('#style-thumbs img').length === 2 && document.getElementById('regions').checked")
	p.until(share + " === '" + painted + "'")
	assert.True(t, p.is("document.getElementById('size').value === '64'"))
	p.set("strength", "0.9")
	p.shoot("again")
	third := p.start(s)
	assert.Equal(t, 0.9, *third.Options.Strength)
	assert.Equal(t, second.Options.Iterations, third.Options.Iterations)
	assert.Equal(t, second.Pictures(), third.Pictures())
	assert.Equal(t, mask.Pixels, s.picture(third.ID, "content-mask").Pixels)

	// What the form has no field for is kept, and can be left out.
	old := s.job(`{"size":64,"iterations":2,"tv_weight":0.5,"style_weight":3}`)
	s.until(old, func(j jobs.Job) bool { return j.State == jobs.Done })
	p.set("search", old[:12])
	p.until("document.querySelectorAll('#gallery li').length === 1")
	p.run(chromedp.Click("#gallery button"))
	p.until("document.getElementById('settings').textContent.includes('" + old + "')")
	p.run(chromedp.Click("#again"))
	p.until("document.getElementById('kept-text').textContent.includes('tv weight')")
	p.shoot("kept")
	fourth := p.start(s)
	assert.Equal(t, 0.5, *fourth.Options.TVWeight)
	assert.Equal(t, 3.0, *fourth.Options.StyleWeight)

	// The gallery finds by id, preset, state and size.
	for search, count := range map[string]string{third.ID[:12]: "1", "balanced done": "5", "64x": "5", "gatys": "0",
		"64x64": "0", "done " + first.ID[:12]: "1"} {
		p.set("search", search)
		p.until("document.querySelectorAll('#gallery li').length === " + count)
	}
	p.set("search", "nothing like it")
	p.until("document.getElementById('gallery-empty').textContent === 'No picture is like that.'")
	p.set("search", "")
	p.set("filter-state", "failed")
	p.until("document.querySelectorAll('#gallery li').length === 0")
	p.shoot("none-found")
	// One that fails says why: its mask has a level that the painting's lacks.
	var black bytes.Buffer
	require.NoError(t, picture.New(8, 8).Encode(&black, picture.PNG, picture.Encoding{}))
	white := s.bytes(second.ID, "style-mask-2")
	status, header, text := s.post(nil, "options", `{"size":64}`, "content", black.Bytes(), "style", white,
		"content_mask", black.Bytes(), "style_mask", white)
	require.Equal(t, 201, status, string(text))
	s.until(path.Base(header.Get("Location")), func(j jobs.Job) bool { return j.State == jobs.Failed })
	p.set("filter-state", "done") // and another again, so that it asks
	p.set("filter-state", "failed")
	p.until("document.querySelectorAll('#gallery li').length === 1")
	p.run(chromedp.Click("#gallery button"))
	p.until("document.getElementById('job-error').textContent.includes('level 255')")
	p.shoot("failed")
	// Masks that are not the page's own are sent again as they were.
	p.run(chromedp.Click("#again"))
	p.until("document.getElementById('regions-hint').textContent.includes('as they were')")
	count := len(s.queue.List())
	p.run(chromedp.Click("#start"))
	p.wait(func() bool { return len(s.queue.List()) > count }, "nothing was submitted")
	assert.Equal(t, black.Bytes(), s.bytes(s.queue.List()[0].ID, "content-mask"))
	assert.Equal(t, white, s.bytes(s.queue.List()[0].ID, "style-mask-1"))
	p.set("filter-state", "done")
	p.until("document.querySelectorAll('#gallery li').length === 5")

	// A service that is gone.
	p.is("window.fetch = () => Promise.reject(new TypeError('gone')), " +
		"XMLHttpRequest.prototype.send = function() { this.onerror() }, true")
	p.set("filter-state", "")
	p.until("document.getElementById('gallery-empty').textContent.includes('does not answer')")
	p.run(chromedp.Click("#start"))
	p.until("document.getElementById('form-error').textContent.includes('does not answer')")
	p.shoot("no-answer")
	assert.Empty(t, p.errors())
}

// start presses the button, and waits until the page shows that the job is done.
func (p *tab) start(s *service) jobs.Job {
	p.t.Helper()
	before := len(s.queue.List())
	p.run(chromedp.Click("#start"))
	p.wait(func() bool { return len(s.queue.List()) > before }, "nothing was submitted")
	newest := s.queue.List()[0]
	p.until("document.getElementById('settings').textContent.includes('" + newest.ID + "') && " +
		"document.getElementById('job-state').textContent === 'Done'")
	j, err := s.queue.Get(p.ctx, newest.ID)
	require.NoError(p.t, err)
	return j
}

// picture is one of a job's.
func (s *service) picture(id, name string) *picture.Picture {
	p, err := picture.Decode(bytes.NewReader(s.bytes(id, name)))
	require.NoError(s.t, err)
	return p
}

func (s *service) bytes(id, name string) []byte {
	status, _, data := s.get("/v1/jobs/" + id + "/" + name)
	require.Equal(s.t, 200, status, name)
	return data
}

// drag presses the button at a place of an element, of which it is a part across and down,
// and lets it go at another.
func (p *tab) drag(selector string, fromX, fromY, toX, toY float64) {
	p.t.Helper()
	p.run(chromedp.ScrollIntoView(selector))
	var box []float64
	x := func(part float64) float64 { return box[0] + part*box[2] }
	y := func(part float64) float64 { return box[1] + part*box[3] }
	mouse := func(kind input.DispatchMouseEventType, partX, partY float64, o ...chromedp.MouseOption) {
		p.run(chromedp.MouseEvent(kind, x(partX), y(partY), o...))
	}
	p.wait(func() bool { // the browser may not have scrolled yet
		box = ask(p, chromedp.Evaluate[[]float64]("(b => [b.x, b.y, b.width, b.height])(document.querySelector('"+
			selector+"').getBoundingClientRect())"))
		mouse(input.DispatchMouseEventTypeMouseMoved, fromX, fromY)
		return p.is("document.querySelector('" + selector + "').matches(':hover')")
	}, "the mouse is not over "+selector)
	mouse(input.DispatchMouseEventTypeMousePressed, fromX, fromY, chromedp.ButtonLeft)
	mouse(input.DispatchMouseEventTypeMouseMoved, (fromX+toX)/2, (fromY+toY)/2, chromedp.ButtonLeft)
	mouse(input.DispatchMouseEventTypeMouseMoved, toX, toY, chromedp.ButtonLeft)
	mouse(input.DispatchMouseEventTypeMouseReleased, toX, toY, chromedp.ButtonLeft)
	p.settle()
}

// shot takes one screenshot of what the window shows.
func (p *tab) shot(name string) {
	p.t.Helper()
	if folder := os.Getenv("NST_SCREENSHOTS"); folder != "" {
		data := ask(p, chromedp.CaptureScreenshot())
		require.NoError(p.t, os.WriteFile(filepath.Join(folder, name+".png"), data, 0o644))
	}
}

// With a token, the page asks for it. An admin sees everyone's pictures, a page at a time,
// and may ask for her own.
func TestPageAsksForToken(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{Tokens: []httpapi.Token{
		{Owner: jobs.Owner{Name: "bob"}, Secret: "the token of bob"},
		{Owner: jobs.Owner{Name: "ann"}, Secret: "the token of ann", Admin: true}}})
	style, err := os.ReadFile(nsttest.Reference(t, "style-120x96.png"))
	require.NoError(t, err)
	for range 62 {
		s.jobOf(`{"size":64}`, style, style)
	}
	s.token = "the token of ann"
	s.jobOf(`{"size":65}`, style, style)

	p := browse(t, s.url)
	p.run(chromedp.WaitVisible("#login"))
	p.set("token", "another")
	p.run(chromedp.Click("#login button"))
	p.until("document.getElementById('login-error').textContent === 'That is not the token.'")
	p.shoot("login")
	p.set("token", "the token of ann")
	p.run(chromedp.Click("#login button"), chromedp.WaitNotVisible("#login"))
	p.run(chromedp.WaitVisible("#logout"), chromedp.WaitVisible("#whose"))
	assert.Equal(t, "ann", p.text("who"))
	cards := "document.querySelectorAll('#gallery li').length === "
	p.until(cards + "60")
	assert.Equal(t, "60 of 63", p.text("gallery-count"))
	p.set("whose", "mine")
	p.until(cards + "1")
	p.set("whose", "")
	p.until(cards + "60")
	p.set("search", "bob")
	p.until(cards + "62")
	p.set("search", "ann")
	p.until(cards + "1")
	p.shoot("signed-in")
	p.set("search", "")
	p.until(cards + "60")
	p.run(chromedp.Click("#load-more"))
	p.until(cards + "63 && document.getElementById('load-more').hidden")
	assert.True(t, p.is("document.activeElement === document.querySelector('#gallery li:nth-child(61) button')"))
	p.run(chromedp.Click("#logout"), chromedp.WaitVisible("#login"))
	assert.True(t, p.is("document.getElementById('new').hidden && document.getElementById('pictures').hidden"))
	assert.Empty(t, p.errors())
}

// Someone has a clip made: it is chosen and seen, its frames come one after the other, the
// result plays, and it is run again.
func TestPageClip(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{MaxClipBytes: 1 << 20})
	p := browse(t, s.url)
	p.run(chromedp.WaitVisible("#start"))
	p.until("document.getElementById('content-title').textContent === 'Photograph or clip'")
	large := nsttest.Writer(t, t.TempDir())("large.mp4", make([]byte, 2<<20))
	p.run(chromedp.SetUploadFiles("#content", []string{large}))
	p.until("document.getElementById('content-error').textContent.includes('large.mp4 has 2 MB; clips of 1 MB')")
	none := nsttest.Writer(t, t.TempDir())("holiday.mp4", []byte("this is no clip"))
	p.run(chromedp.SetUploadFiles("#content", []string{none}),
		chromedp.SetUploadFiles("#style", []string{nsttest.Style(t)}), chromedp.Click("#start"))
	p.until("document.getElementById('content-error').textContent.includes('The clip is no video')")

	p.run(chromedp.SetUploadFiles("#content", []string{nsttest.Clip(t, 10, ".webm")}))
	p.until("document.querySelector('#content-thumbs img')?.naturalWidth === 64")
	assert.True(t, p.is("document.getElementById('regions-part').hidden"))
	assert.Equal(t, "256", ask(p, chromedp.Evaluate[string]("document.getElementById('new').elements.scale.value")))
	assert.Contains(t, p.text("estimate"), "The clip has about 10 frames.")
	p.is("document.getElementById('more').open = true")
	assert.Equal(t, fmt.Sprint(video.DefaultFrameIterations),
		ask(p, chromedp.Evaluate[string]("document.getElementById('frame_iterations').placeholder")))
	p.shoot("clip-form")
	p.set("size", "64")
	p.set("iterations", "30")
	p.set("frame_iterations", "20")
	p.set("passes", "2")
	p.set("container", "webm")
	p.run(chromedp.Click("#start"))
	p.until("document.getElementById('job-state').textContent === 'Waiting'")
	jobstest.Work(t, s.queue, jobstest.Engine(t))
	p.until("/Frame \\d+ of 20, iteration/.test(document.getElementById('job-line').textContent)")
	p.until(previews + " >= 1 && document.querySelectorAll('#curve polyline').length > 0")
	p.shoot("clip-running")
	p.until("document.getElementById('job-state').textContent === 'Done'")
	p.until("document.getElementById('film').readyState >= 2 && document.getElementById('film').videoWidth === 64")
	assert.True(t, p.is("document.getElementById('after').hidden && document.getElementById('download-jpeg').hidden"))
	assert.Contains(t, p.text("job-line"), "10 frames in ")
	assert.Equal(t, "WEBM", p.text("download"))
	assert.Equal(t, jobs.ClipOptions{FrameIterations: new(20), Passes: 2, Container: "webm"},
		s.queue.List()[0].Clip.ClipOptions)
	ask(p, chromedp.Evaluate[bool]("document.getElementById('film').play().then(() => true)",
		chromedp.EvalAwaitPromise))
	p.until("document.getElementById('film').currentTime > 0.2")
	p.is("document.getElementById('film').pause(), true")
	p.until("document.querySelector('#made-of video').readyState >= 1")
	p.until("document.querySelector('#gallery img').naturalWidth === 64")
	assert.Contains(t, p.text("gallery"), "10 frames")
	p.shoot("clip-done")

	p.run(chromedp.Click("#again"))
	p.until("document.getElementById('live').textContent.startsWith('The form has that picture')")
	for id, value := range map[string]string{"frame_iterations": "20", "passes": "2", "container": "webm"} {
		assert.True(t, p.is(fmt.Sprintf("document.getElementById(%q).value === %q", id, value)), id)
	}
	assert.True(t, p.is("[...document.querySelectorAll('.of-clips')].every((field) => !field.hidden)"))
	assert.True(t, p.is("document.getElementById('size').value === '64'"))
	assert.True(t, p.is("document.querySelector('#content-thumbs img')?.alt === 'The clip'"))
	assert.Contains(t, p.text("estimate"), "once it runs")
	p.run(chromedp.Click("#content-samples button")) // a photograph in its place
	p.until("!document.getElementById('regions-part').hidden")
	assert.True(t, p.is("[...document.querySelectorAll('.of-clips')].every((field) => field.hidden)"))
	p.run(chromedp.Click("#start"))
	p.until("document.getElementById('job-state').textContent === 'Done' && document.getElementById('film').hidden")
	assert.Nil(t, s.queue.List()[0].Clip)
	assert.Empty(t, p.errors())
}
