// node upload.mjs URL TOKEN SIZE RUNS MODE: uploads by fetch, a line for each. MODE: whole, chunked.

const [url, token, size, runs, mode] = process.argv.slice(2)
const head = Buffer.from('--b\r\nContent-Disposition: form-data; name="file"; filename="film.bin"\r\n\r\n')
const whole = Buffer.concat([head, Buffer.alloc(Number(size)), Buffer.from('\r\n--b--\r\n')])

function* pieces() {
  for (let start = 0; start < whole.length; start += 65536) yield whole.subarray(start, start + 65536)
}

for (let run = 0; run < Number(runs); run++) {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: {Authorization: `Bearer ${token}`, 'Content-Type': 'multipart/form-data; boundary=b'},
      body: mode === 'chunked' ? ReadableStream.from(pieces()) : whole,
      duplex: 'half',
    })
    console.log(answer.status, await answer.text())
  } catch (error) {
    console.log(`broken: ${error} ${error.cause}`)
  }
}
