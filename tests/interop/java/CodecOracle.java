import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.lang.reflect.InvocationTargetException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.Readable;

/**
 * Reads messages with Kafka's own classes and writes them again.
 *
 * Standard input: frames of (class name as UTF, version as short, length as int, bytes); length -1 asks for the
 * instance that the constructor without arguments makes. Standard output, one per frame: (0, length, bytes), or
 * (1, length, UTF-8 text) when Kafka refuses.
 */
public class CodecOracle {
    public static void main(String[] args) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
        while (true) {
            String name;
            try {
                name = in.readUTF();
            } catch (EOFException end) {
                break;
            }
            short version = in.readShort();
            int length = in.readInt();
            byte[] data = length < 0 ? null : in.readNBytes(length);
            byte[] answer;
            int status = 0;
            try {
                answer = again(Class.forName(name), version, data);
            } catch (InvocationTargetException error) {
                status = 1;
                answer = String.valueOf(error.getCause()).getBytes(StandardCharsets.UTF_8);
            } catch (Exception error) {
                status = 1;
                answer = error.toString().getBytes(StandardCharsets.UTF_8);
            }
            out.writeByte(status);
            out.writeInt(answer.length);
            out.write(answer);
        }
        out.flush();
    }

    private static byte[] again(Class<?> type, short version, byte[] data) throws Exception {
        Message message;
        if (data == null) {
            message = (Message) type.getDeclaredConstructor().newInstance();
        } else {
            ByteBufferAccessor readable = new ByteBufferAccessor(ByteBuffer.wrap(data));
            message = (Message) type.getDeclaredConstructor(Readable.class, short.class).newInstance(readable, version);
            if (readable.remaining() > 0) {
                throw new IllegalStateException(readable.remaining() + " bytes left over");
            }
        }
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        if (buffer.hasRemaining()) {
            throw new IllegalStateException("size() promised " + buffer.remaining() + " bytes more");
        }
        return buffer.array();
    }
}
