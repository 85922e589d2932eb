"""How the icc-*.png, .jpg, .tif and .webp here were made (Pillow, and the lcms2 that it brings, for profiles that
Pillow cannot make). Each is a 12×8 grid of colours, from dark to light and grey to pure, in a wider space than sRGB,
with that space's profile; icc-NAME.srgb.png is what lcms2 makes of it in sRGB by relative colorimetry."""
import colorsys, ctypes, glob, io, os
import PIL
from PIL import Image, ImageCms

lcms = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(PIL.__file__), "..", "pillow.libs", "liblcms2*"))[0])

class xyY(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double), ("Y", ctypes.c_double)]

class Triple(ctypes.Structure):
    _fields_ = [("r", xyY), ("g", xyY), ("b", xyY)]

lcms.cmsBuildGamma.restype = lcms.cmsBuildParametricToneCurve.restype = lcms.cmsCreateRGBProfile.restype = ctypes.c_void_p
lcms.cmsCreateRGBProfile.argtypes = [ctypes.POINTER(xyY), ctypes.POINTER(Triple), ctypes.POINTER(ctypes.c_void_p)]
lcms.cmsSaveProfileToMem.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)]
lcms.cmsBuildGamma.argtypes = [ctypes.c_void_p, ctypes.c_double]
lcms.cmsBuildParametricToneCurve.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_double)]

def profile(white, primaries, curve):
    w = xyY(*white, 1)
    p = Triple(*(xyY(x, y, 1) for x, y in primaries))
    curves = (ctypes.c_void_p * 3)(curve, curve, curve)
    h = lcms.cmsCreateRGBProfile(ctypes.byref(w), ctypes.byref(p), curves)
    n = ctypes.c_uint32(0)
    lcms.cmsSaveProfileToMem(h, None, ctypes.byref(n))
    data = ctypes.create_string_buffer(n.value)
    lcms.cmsSaveProfileToMem(h, data, ctypes.byref(n))
    return data.raw

D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
srgb_curve = lcms.cmsBuildParametricToneCurve(None, 4, (ctypes.c_double * 5)(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
profiles = {
    "p3": profile(D65, [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)], srgb_curve),
    "adobe": profile(D65, [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], lcms.cmsBuildGamma(None, 563 / 256)),
    "prophoto": profile(D50, [(0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)], lcms.cmsBuildGamma(None, 1.8)),
}
picture = Image.new("RGB", (12, 8))
for x in range(12):
    for y in range(8):
        r, g, b = colorsys.hsv_to_rgb(x / 12, (y % 4) / 3, 1 - 0.45 * (y // 4) - 0.05 * (x % 3))
        picture.putpixel((x, y), tuple(round(255 * v) for v in (r, g, b)))
picture = picture.resize((96, 64), Image.NEAREST)

def reference(picture, data, name):
    srgb = ImageCms.profileToProfile(picture, ImageCms.ImageCmsProfile(io.BytesIO(data)), ImageCms.createProfile("sRGB"),
                                     renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC)
    srgb.info.pop("icc_profile", None)
    srgb.save(f"icc-{name}.srgb.png")

for name, data in profiles.items():
    picture.save(f"icc-{name}.png", icc_profile=data)
    reference(picture, data, name)
picture.save("icc-p3.jpg", icc_profile=profiles["p3"], quality=100, subsampling=0)
reference(Image.open("icc-p3.jpg"), profiles["p3"], "p3-jpg")  # whose colours JPEG has moved a little
picture.save("icc-p3.tif", icc_profile=profiles["p3"])
picture.save("icc-p3.webp", icc_profile=profiles["p3"], lossless=True)
