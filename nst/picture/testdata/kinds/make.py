"""Makes one small file of each kind of picture that people bring, and beside each, in expected/, what a colour-managed
viewer shows: sRGB, upright, over white, 8 bits, as Pillow with lcms (relative colorimetric) decodes it or as it was drawn.

    python make.py OUT BASE.png WIDTH HEIGHT      # pip install pillow numpy tifffile imagecodecs pillow-heif pillow-jxl-plugin

index.json names each file's kind, the mean difference allowed (levels of 255), and whether a decoder may refuse it with one honest line."""
import io, json, os, struct, sys, zlib
import numpy as np, tifffile, imagecodecs, pillow_heif, pillow_jxl
from PIL import Image, ImageCms, ImageDraw, ImageOps
pillow_heif.register_heif_opener()
out, base_file, W, H = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.makedirs(f'{out}/expected', exist_ok=True)
base = Image.open(base_file).convert('RGB').resize((W, H), Image.LANCZOS)
d = ImageDraw.Draw(base)
for i, c in enumerate([(255,0,0),(0,255,0),(0,0,255),(255,255,0),(0,255,255),(255,0,255),(255,255,255),(0,0,0),(128,128,128),(255,128,0)]):
    d.rectangle([i*W//10, H*3//4, (i+1)*W//10-1, H-1], fill=c)
d.rectangle([0, 0, W//6, H//4], fill=(200, 30, 60))   # top left, to see which way is up
a = np.asarray(base); a16 = a.astype(np.uint16)*257; grey = np.asarray(base.convert('L')); bit = base.convert('1')
alpha = np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1)); alpha[:H//8] = 0
rgba = np.dstack([a, alpha]); SRGB = ImageCms.createProfile('sRGB'); index = {}
def over_white(rgb, al): al = al[..., None]/255.; return Image.fromarray(np.round(rgb*al+255*(1-al)).astype(np.uint8))
rgb3 = lambda g: Image.fromarray(np.dstack([g]*3))

# Profiles, built here: matrix and curve from primaries (D50-adapted XYZ), grey from a curve.
def s15(x): return struct.pack('>i', int(round(x*65536)))
def profile(space, tags):
    body, table, off = b'', struct.pack('>I', len(tags)), 128+4+12*len(tags)
    for k, v in tags:
        v += b'\0'*(-len(v) % 4); table += k+struct.pack('>II', off+len(body), len(v)); body += v
    n = off+len(body)
    head = struct.pack('>I', n)+b'\0'*4+struct.pack('>I', 0x02100000)+b'mntr'+space+b'XYZ '+struct.pack('>6H', 2026,1,1,0,0,0)+b'acsp'
    return head.ljust(68, b'\0')+b''.join(map(s15, (0.9642, 1.0, 0.8249)))+b'\0'*48+table+body
def text(t): return b'desc\0\0\0\0'+struct.pack('>I', len(t)+1)+t+b'\0'+b'\0'*78
def gamma(g): return b'curv\0\0\0\0'+struct.pack('>IH', 1, int(round(g*256)))
def table(y): return b'curv\0\0\0\0'+struct.pack('>I', len(y))+np.round(np.clip(y, 0, 1)*65535).astype('>u2').tobytes()
def xyz(*v): return b'XYZ \0\0\0\0'+b''.join(map(s15, v))
def rgb_profile(name, cols, g): return profile(b'RGB ', [(b'desc', text(name)), (b'wtpt', xyz(.9642,1,.8249))]+[(k, xyz(*c)) for k, c in zip((b'rXYZ', b'gXYZ', b'bXYZ'), cols)]+[(k, gamma(g)) for k in (b'rTRC', b'gTRC', b'bTRC')])
def grey_profile(name, curve): return profile(b'GRAY', [(b'desc', text(name)), (b'wtpt', xyz(.9642,1,.8249)), (b'kTRC', curve)])
WIDE = rgb_profile(b'wide', [(0.60974,0.31111,0.01947),(0.20528,0.62567,0.06087),(0.14919,0.06322,0.74457)], 563/256)   # Adobe RGB's primaries
P3 = rgb_profile(b'p3', [(0.51512,0.2412,-0.00105),(0.29198,0.69225,0.04189),(0.1571,0.06657,0.78407)], 2.2)
x = np.linspace(0, 1, 256); dot = (1-x)+4*.2*x*(1-x)
GREYS = {'lin': b'curv\0\0\0\0'+struct.pack('>I', 0), 'g18': gamma(1.8), 'dot20': table(1-dot)}

def to_srgb(im, prof): return ImageCms.profileToProfile(im, ImageCms.ImageCmsProfile(io.BytesIO(prof)), SRGB, renderingIntent=1, outputMode='RGB')
def put(name, kind, make, expect=None, mean=1.0, may=False):
    """expect: a picture; None: what Pillow reads."""
    p = f'{out}/{name}'
    try:
        make(p)
        e = expect() if callable(expect) else expect
        if e is None: e = ImageOps.exif_transpose(Image.open(p)).convert('RGB')
    except Exception as err: print('not made:', name, type(err).__name__, str(err)[:90]); return
    e.save(f'{out}/expected/{name}.png'); index[name] = {'kind': kind, 'mean': mean, 'may_refuse': may}
def chunk(k, v): return struct.pack('>I', len(v))+k+v+struct.pack('>I', zlib.crc32(k+v))
def png_with(p, chunks):
    b = io.BytesIO(); base.save(b, 'PNG'); b = b.getvalue(); open(p, 'wb').write(b[:33]+b''.join(chunk(*c) for c in chunks)+b[33:])
def jpeg(im=base, **k):
    b = io.BytesIO(); im.save(b, 'JPEG', **({'quality': 97, 'subsampling': 0} | k)); return b.getvalue()
def write(b): return lambda p: open(p, 'wb').write(b)

# JPEG
for n, k in {'420': dict(subsampling=2), 'prog': dict(progressive=True), 'rst': dict(restart_marker_rows=1)}.items(): put(f'jpeg_{n}.jpg', 'jpeg', write(jpeg(**k)), mean=3 if n == '420' else 1)
put('jpeg_grey.jpg', 'jpeg', write(jpeg(base.convert('L'))))
put('jpeg_cmyk.jpg', 'jpeg cmyk', lambda p: base.convert('CMYK').save(p, quality=97), mean=3)
wide = jpeg(icc_profile=WIDE)
put('jpeg_icc.jpg', 'icc', write(wide), lambda: to_srgb(Image.open(io.BytesIO(wide)), WIDE))
put('jpeg_icc_sof1.jpg', 'icc, extended sequential', write(wide.replace(b'\xff\xc0', b'\xff\xc1', 1)), lambda: to_srgb(Image.open(io.BytesIO(wide)), WIDE))
put('jpeg_icc_fill.jpg', 'icc, fill byte before the marker', write(wide.replace(b'\xff\xe2', b'\xff\xff\xe2', 1)), lambda: to_srgb(Image.open(io.BytesIO(wide)), WIDE))
for n, c in GREYS.items():
    g = grey_profile(n.encode(), c)
    for e, k in (('jpg', dict(quality=97)), ('png', {}), ('tif', {})):
        put(f'grey_icc_{n}.{e}', 'grey icc', lambda p: base.convert('L').save(p, icc_profile=g, **k), lambda: to_srgb(base.convert('L'), g), mean=2)
put('jpeg_12bit.jpg', 'jpeg 12 bit', lambda p: open(p, 'wb').write(imagecodecs.jpeg_encode(a16 >> 4, bitspersample=12)), base, mean=3, may=True)
for o in range(1, 9):
    ex = Image.Exif(); ex[0x112] = o
    for e, k in (('jpg', dict(quality=97, subsampling=0)), ('png', {}), ('webp', dict(lossless=True)), ('tif', {})): put(f'orient{o}.{e}', 'orientation', lambda p: base.save(p, exif=ex, **k))
def webp_exif(prefix, odd):
    def make(p):
        ex = Image.Exif(); ex[0x112] = 6
        for extra in range(64):   # a picture whose chunk has the length wanted
            b = io.BytesIO(); im = base.copy(); im.putpixel((0, 0), (200, 30, 60+extra)); im.save(b, 'WEBP', lossless=True); b = b.getvalue()
            if struct.unpack('<I', b[16:20])[0] % 2 == odd: break
        body = (b'Exif\0\0' if prefix else b'')+ex.tobytes().removeprefix(b'Exif\0\0'); riff = b'WEBPVP8X'+struct.pack('<IB3x', 10, 8)+struct.pack('<I', W-1)[:3]+struct.pack('<I', H-1)[:3]+b[12:]
        riff += b'EXIF'+struct.pack('<I', len(body))+body+b'\0'*(len(body) % 2); open(p, 'wb').write(b'RIFF'+struct.pack('<I', len(riff))+riff)
    return make
for pre in (0, 1):
    for odd in (0, 1): put(f'webp_orient_{"prefix" if pre else "bare"}_{"odd" if odd else "even"}.webp', 'orientation', webp_exif(pre, odd), base.transpose(Image.ROTATE_270))
# PNG
put('png_16.png', 'png', write(imagecodecs.png_encode(a16)), base); put('png_16a.png', 'png', write(imagecodecs.png_encode(np.dstack([a16, alpha.astype(np.uint16)*257]))), over_white(a, alpha))
put('png_rgba.png', 'alpha', lambda p: Image.fromarray(rgba).save(p), over_white(a, alpha)); put('png_la.png', 'alpha', lambda p: Image.fromarray(np.dstack([grey, alpha]), 'LA').save(p), over_white(np.dstack([grey]*3), alpha))
put('png_1bit.png', 'png', lambda p: bit.save(p)); put('png_pal.png', 'png', lambda p: base.quantize(16).save(p, bits=4)); put('png_icc.png', 'icc', lambda p: base.save(p, icc_profile=P3), lambda: to_srgb(base, P3))
put('png_gama1.png', 'png gAMA, linear', lambda p: png_with(p, [(b'gAMA', struct.pack('>I', 100000))]), lambda: to_srgb(base, rgb_profile(b'l', [(.43607,.22249,.01392),(.38515,.71687,.09708),(.14307,.06061,.7141)], 1.0)), mean=2)
put('png_srgb.png', 'png sRGB chunk', lambda p: png_with(p, [(b'sRGB', b'\0'), (b'gAMA', struct.pack('>I', 45455))]), base)
put('png_cicp_p3.png', 'png cICP', lambda p: png_with(p, [(b'cICP', bytes([12, 13, 0, 1]))]), lambda: to_srgb(base, rgb_profile(b'p', [(0.51512,0.2412,-0.00105),(0.29198,0.69225,0.04189),(0.1571,0.06657,0.78407)], 2.2)), mean=4)
put('apng.png', 'png', lambda p: base.save(p, save_all=True, append_images=[ImageOps.mirror(base)], duration=100), base)
# WebP, GIF, BMP
put('webp_lossy.webp', 'webp lossy', lambda p: base.save(p, quality=95), mean=4); put('webp_lossy_a.webp', 'webp lossy', lambda p: Image.fromarray(rgba).save(p, quality=95), lambda: over_white(a, alpha), mean=4)
put('webp_lossless.webp', 'webp', lambda p: base.save(p, lossless=True)); put('webp_lossless_a.webp', 'webp', lambda p: Image.fromarray(rgba).save(p, lossless=True, exact=True), over_white(a, alpha))
put('webp_icc.webp', 'icc', lambda p: base.save(p, lossless=True, icc_profile=P3), lambda: to_srgb(base, P3)); put('webp_anim.webp', 'webp animated: its first frame', lambda p: base.save(p, lossless=True, save_all=True, append_images=[ImageOps.mirror(base)], duration=100), base)
put('gif.gif', 'gif', lambda p: base.quantize(64).save(p)); put('gif_anim.gif', 'gif', lambda p: base.save(p, save_all=True, append_images=[ImageOps.mirror(base)], duration=100), lambda: Image.open(f'{out}/gif_anim.gif').convert('RGB'))
def gif_small(p):
    b = io.BytesIO(); base.quantize(64).save(b, 'GIF'); b = bytearray(b.getvalue()); b[6:10] = struct.pack('<HH', W+20, H+10); i = bytes(b).find(b'\x2c', 13+3*64); open(p, 'wb').write(b)
def gif_expect():
    im = Image.new('RGB', (W+20, H+10), 'white'); im.paste(base.quantize(64).convert('RGB'), (0, 0)); return im
put('gif_canvas.gif', 'gif whose frame is smaller than its canvas (the rest is transparent: white)', gif_small, gif_expect)
for n, im in {'24': base, '8': base.quantize(64), '1': bit}.items(): put(f'bmp_{n}.bmp', 'bmp', lambda p: im.save(p))
v565 = ((a[..., 0] >> 3).astype('<u2') << 11) | ((a[..., 1] >> 2).astype('<u2') << 5) | (a[..., 2] >> 3); row = -(-W*2 // 4)*4
put('bmp_565.bmp', 'bmp 16 bit', write(b'BM'+struct.pack('<IHHI', 66+row*H, 0, 0, 66)+struct.pack('<IiiHHIIiiII', 40, W, H, 1, 16, 3, row*H, 0, 0, 0, 0)+struct.pack('<III', 0xf800, 0x7e0, 0x1f)+b''.join(r.tobytes().ljust(row, b'\0') for r in v565[::-1])), base, mean=4, may=True)
# TIFF
def tif(arr, **k): return lambda p: tifffile.imwrite(p, arr, **k)
R = dict(photometric='rgb')
for c in ('lzw', 'zlib', 'packbits', 'zstd', 'jpeg', None): put(f'tiff_{c}.tif', 'tiff', tif(a, compression=c, **R), None if c == 'jpeg' else base, may=c == 'zstd')   # JPEG: as libtiff shows it, 5.7 levels from the base
put('tiff_16.tif', 'tiff', tif(a16, **R), base); put('tiff_16be_pred.tif', 'tiff', tif(a16.astype('>u2'), compression='zlib', predictor=True, byteorder='>', **R), base)
put('tiff_tiled.tif', 'tiff', tif(a, tile=(16, 16), **R), base); P = a.transpose(2, 0, 1).copy()
put('tiff_planar.tif', 'tiff planar', tif(P, planarconfig='separate', **R), base); put('tiff_planar_lzw.tif', 'tiff planar', tif(P, planarconfig='separate', compression='lzw', **R), base)
put('tiff_planar_tile.tif', 'tiff planar', tif(P, planarconfig='separate', tile=(256, 256), **R), base, may=True)
put('tiff_alpha.tif', 'alpha', tif(rgba, extrasamples=['unassalpha'], **R), over_white(a, alpha)); put('tiff_assoc.tif', 'alpha', tif(np.dstack([np.round(a*(alpha[..., None]/255.)).astype(np.uint8), alpha]), extrasamples=['assocalpha'], **R), over_white(a, alpha), mean=2)
put('tiff_rgbx.tif', 'tiff, a fourth sample that is no alpha', tif(rgba, extrasamples=['unspecified'], **R), base, may=True); put('tiff_la.tif', 'alpha', lambda p: Image.fromarray(np.dstack([grey, alpha]), 'LA').save(p), over_white(np.dstack([grey]*3), alpha))
put('tiff_big.tif', 'bigtiff', tif(a, bigtiff=True, **R), base); put('tiff_float.tif', 'tiff float', tif((a/255.).astype(np.float32), **R), base, may=True)
put('tiff_minwhite.tif', 'tiff', tif(255-grey, photometric='miniswhite'), rgb3(grey)); put('tiff_pal.tif', 'tiff', lambda p: base.quantize(64).save(p)); put('tiff_cmyk.tif', 'tiff cmyk', lambda p: base.convert('CMYK').save(p), mean=3)
put('tiff_lab.tif', 'tiff lab', lambda p: ImageCms.profileToProfile(base, SRGB, ImageCms.createProfile('LAB'), outputMode='LAB').save(p), base, mean=3, may=True)
for c in ('group3', 'group4', 'tiff_lzw', None): put(f'tiff_1bit_{c}.tif', 'tiff 1 bit', lambda p: bit.save(p, **({'compression': c} if c else {})), bit.convert('RGB'))
def fill2(p):
    b = io.BytesIO(); bit.save(b, 'TIFF'); rev = bytes(int(f'{i:08b}'[::-1], 2) for i in range(256)); t = np.packbits(np.asarray(bit), axis=1).tobytes().translate(rev)
    tags = [(256, 3, 1, W), (257, 3, 1, H), (258, 3, 1, 1), (259, 3, 1, 1), (262, 3, 1, 1), (266, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, H), (279, 4, 1, len(t))]
    pad = len(t) % 2; open(p, 'wb').write(b'II*\0'+struct.pack('<I', 8+len(t)+pad)+t+b'\0'*pad+struct.pack('<H', len(tags))+b''.join(struct.pack('<HHII', *x) for x in tags)+b'\0'*4)
put('tiff_fillorder2.tif', 'tiff 1 bit', fill2, bit.convert('RGB'))
# what phones and browsers write
put('heic.heic', 'heic', lambda p: pillow_heif.from_pillow(base).save(p, quality=95), mean=4); put('avif.avif', 'avif', lambda p: base.save(p, quality=95), mean=4); put('jxl.jxl', 'jpeg xl', lambda p: base.save(p, lossless=True), base)
def rotated_heic(p):
    h = pillow_heif.from_pillow(base); h.save(p, quality=95)
put('heic_p3.heic', 'heic icc', lambda p: base.save(p, format='HEIF', quality=95, icc_profile=P3), lambda: to_srgb(Image.open(f'{out}/heic_p3.heic').convert('RGB'), P3), mean=4)
put('mpo.jpg', 'jpeg, several pictures', lambda p: base.save(p, format='MPO', save_all=True, append_images=[ImageOps.mirror(base)], quality=97, subsampling=0), base, mean=2)
put('png_named.jpg', 'wrong ending', lambda p: base.save(p, format='PNG'), base); put('webp_named.png', 'wrong ending', lambda p: base.save(p, format='WEBP', lossless=True), base)
json.dump(index, open(f'{out}/index.json', 'w'), indent=1); print(len(index), 'files')
