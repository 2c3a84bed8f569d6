// java Upload.java URL TOKEN SIZE RUNS MODE: uploads by HttpURLConnection, a line for each. MODE: whole, fixed, chunked.

import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;

class Upload {
    static final byte[] HEAD =
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"film.bin\"\r\n\r\n".getBytes();
    static final byte[] TAIL = "\r\n--b--\r\n".getBytes();

    public static void main(String[] words) throws Exception {
        trustAnybody();
        for (int run = 0; run < Integer.parseInt(words[3]); run++) {
            try {
                System.out.println(upload(new URL(words[0]), words[1], Integer.parseInt(words[2]), words[4]));
            } catch (Exception error) {
                System.out.println("broken: " + error);
            }
        }
    }

    static String upload(URL url, String token, int size, String mode) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) url.openConnection();
        connection.setRequestMethod("POST");
        connection.setDoOutput(true);
        connection.setRequestProperty("Authorization", "Bearer " + token);
        connection.setRequestProperty("Content-Type", "multipart/form-data; boundary=b");
        if (mode.equals("fixed")) connection.setFixedLengthStreamingMode(HEAD.length + size + TAIL.length);
        if (mode.equals("chunked")) connection.setChunkedStreamingMode(0);
        try (OutputStream out = connection.getOutputStream()) {
            out.write(HEAD);
            byte[] piece = new byte[65536];
            for (int left = size; left > 0; left -= piece.length) out.write(piece, 0, Math.min(left, piece.length));
            out.write(TAIL);
        }
        int status = connection.getResponseCode();
        InputStream body = connection.getErrorStream();
        return status + " " + (body == null ? "" : new String(body.readAllBytes()));
    }

    static void trustAnybody() throws Exception {
        TrustManager anybody = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] {anybody}, new SecureRandom());
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
        HttpsURLConnection.setDefaultHostnameVerifier((host, session) -> true);
    }
}
