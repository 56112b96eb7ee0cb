package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gildhq/gild/plugins/sdk"
)

// layer is one file of the artifact: what the registry is told of it, and its bytes, from
// the beginning.
type layer struct {
	desc ocispec.Descriptor
	file *os.File
}

func closeLayers(layers []*layer) {
	for _, l := range layers {
		// The file was only read, or is a temporary one without a name.
		l.file.Close()
	}
}

// openLayers makes a layer of each file that the config asks for.
func openLayers(ctx context.Context, t *sdk.Target, c Config) (layers []*layer, err error) {
	files, err := choose(t.Image, c.Formats)
	if err != nil {
		return nil, permanent(err)
	}
	for _, f := range files {
		l, err := openLayer(ctx, t, f, c.Compression)
		if err != nil {
			closeLayers(layers)
			return nil, err
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// choose picks the files of the formats, or the one that a registry is best given.
func choose(image *sdk.ImageInfo, formats []string) ([]sdk.ImageFile, error) {
	if image != nil && image.ID != "" && len(image.Files) == 0 {
		return nil, fmt.Errorf("the image is %s in the region %s, and only files can be pushed; use the local builder", image.ID, image.Region)
	}
	if image == nil || len(image.Files) == 0 {
		return nil, errors.New("there is no image to push; put the step into publish.to")
	}
	var have []string
	byFormat := map[string]sdk.ImageFile{}
	for _, f := range image.Files {
		have = append(have, f.Format)
		byFormat[f.Format] = f
	}
	if len(formats) == 0 {
		formats = have[:1]
		if slices.Contains(have, "qcow2") {
			formats = []string{"qcow2"}
		}
	}
	var files []sdk.ImageFile
	for _, format := range formats {
		f, ok := byFormat[format]
		if !ok {
			return nil, fmt.Errorf("the image has no file of the format %q, only %s; change formats, here or in builders", format, strings.Join(have, " and "))
		}
		files = append(files, f)
	}
	return files, nil
}

// openLayer opens an image's file, or a compressed copy of it.
func openLayer(ctx context.Context, t *sdk.Target, f sdk.ImageFile, compression string) (*layer, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	l := &layer{file: file, desc: ocispec.Descriptor{
		MediaType: "application/vnd.gild.disk.v1." + f.Format,
		Digest:    digest.NewDigestFromEncoded(digest.SHA256, f.SHA256),
		Size:      f.Size,
		Annotations: map[string]string{
			ocispec.AnnotationTitle: imageName(t.Pipeline) + "." + f.Format,
			sha256Key:               f.SHA256,
		},
	}}
	p, ok := packerOf(compression)
	if !ok {
		return l, nil
	}
	defer file.Close()
	fmt.Fprintf(t.Log, "compressing the %s file\n", f.Format)
	read := &counted{contextReader{ctx, bufio.NewReaderSize(file, 1<<20)}, func(n int64) { t.Progress(n, f.Size, "bytes") }, 0}
	packed, sum, size, err := pack(read, p.writer, f.SHA256)
	if err != nil {
		return nil, fmt.Errorf("compress %s: %w", f.Path, err)
	}
	l.file, l.desc.Digest, l.desc.Size = packed, sum, size
	l.desc.MediaType += "+" + compression
	l.desc.Annotations[ocispec.AnnotationTitle] += p.suffix
	return l, nil
}

// packer is one way to compress. The same input must give the same output, so that a blob
// that was pushed before is recognized.
type packer struct {
	suffix string
	writer func(io.Writer) (io.WriteCloser, error)
}

// packerOf returns the packer of a compression; "none" has none.
func packerOf(compression string) (packer, bool) {
	switch compression {
	case "gzip":
		return packer{".gz", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }}, true
	case "zstd":
		return packer{".zst", func(w io.Writer) (io.WriteCloser, error) {
			// A fixed number: the number of processors must not decide over the output.
			return zstd.NewWriter(w, zstd.WithEncoderConcurrency(2))
		}}, true
	}
	return packer{}, false
}

// pack compresses into a temporary file that has no name, so that nothing stays behind
// however the process ends. want is the SHA-256 of what is read, in hex.
func pack(from io.Reader, compress func(io.Writer) (io.WriteCloser, error), want string) (file *os.File, sum digest.Digest, size int64, err error) {
	file, err = os.CreateTemp("", "gild-oci-push-")
	if err != nil {
		return nil, "", 0, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, "", 0, err
	}
	before, after := sha256.New(), digest.SHA256.Digester()
	w, err := compress(io.MultiWriter(file, after.Hash()))
	if err != nil {
		return nil, "", 0, err
	}
	_, err = io.Copy(io.MultiWriter(w, before), from)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, "", 0, err
	}
	if got := hex.EncodeToString(before.Sum(nil)); got != want {
		return nil, "", 0, fmt.Errorf("its SHA-256 is %s, and the image was built with %s", got, want)
	}
	if size, err = file.Seek(0, io.SeekCurrent); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	return file, after.Digest(), size, err
}

// contextReader ends when the context does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
