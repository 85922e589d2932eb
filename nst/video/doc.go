// Package video gives a clip the style of paintings, steady in time (Ruder, Dosovitskiy and
// Brox 2016, arXiv:1604.08610): each frame starts from the last one's result, moved along the
// optical flow, and is held to it where the flow can be relied on.
//
// A Sequence makes frames one after the other, wherever they come from. A Clip is a file: it
// is read and written by ffmpeg and ffprobe (5.1 or later), which run as processes of their
// own and have to be installed. A Store keeps the frames that are done, so that a run can be
// gone on with. A Run is all of them together; with several engines it makes shots at the same
// time.
package video
