"""How the pictures here were made (Pillow). Every one but the WebP pair is the 4×3 grid of colours of colour(x, y),
stored as its EXIF orientation says, so that upright they are all the same picture, 8 times enlarged."""
from PIL import Image
from PIL.Image import Transpose as T

def colour(x, y): return (60 * x + 10, 80 * y + 20, 200 - 40 * x)

upright = Image.new("RGB", (4, 3))
for x in range(4):
    for y in range(3):
        upright.putpixel((x, y), colour(x, y))
upright = upright.resize((32, 24), Image.NEAREST)
# What a camera stores: the upright picture with the orientation undone.
undo = {1: None, 2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_90,
        7: T.TRANSVERSE, 8: T.ROTATE_270}
for o, how in undo.items():
    exif = Image.Exif()
    exif[0x0112] = o
    stored = upright if how is None else upright.transpose(how)
    stored.save(f"orientation-{o}.jpg", exif=exif, quality=95, subsampling=0)
exif = Image.Exif()
exif[0x0112] = 6
upright.transpose(undo[6]).save("orientation-6.png", exif=exif)
upright.transpose(undo[6]).save("orientation-6.webp", exif=exif, lossless=True)
upright.transpose(undo[6]).save("orientation-6.tif", exif=exif)
upright.save("lossy.webp", quality=95)
half = upright.convert("RGBA")
half.putalpha(128)
half.save("alpha.webp", lossless=True, exact=True)
upright.convert("CMYK").save("cmyk.jpg", quality=95, subsampling=0)
upright.save("progressive.jpg", quality=95, progressive=True, subsampling=0)
upright.save("lzw.tif", compression="tiff_lzw")
